"""A network with its loss, optimizer and learning-rate schedule, for any of the tasks."""
import contextlib
import os
import random
import sys

import numpy as np
import torch

from utils.files.errors import UserError
from utils.networks import decoding
from utils.networks.learningRecipe import REGULARISED, dropHiddenStates, droppedWords, smoothedLoss
from utils.networks.otherNetworks import isFast, isWordwise, warnOfForwards, wordwise
from utils.networks.precision import FLOAT32, hindrance, lossScaler, products
from utils.networks.stepGraphs import StepGraphs
from utils.processes.cores import availableCores
from utils.processes.distributed import averageGradients, isMain, rank, worldSize

OPTIMIZERS = {'adamW': torch.optim.AdamW, 'adam': torch.optim.Adam, 'SGD': torch.optim.SGD,
              'RMSprop': torch.optim.RMSprop}


def seedEverything(seed, epoch=0):
    """Seeds python, numpy and torch (CPU and GPU) for one epoch, so that a run resumed there goes
    on as it would have. Each process of a training has its own seed, and so its own dropout."""
    text = f'{seed} {epoch}' if isMain() else f'{seed} {epoch} {rank()}'
    seed = random.Random(text).getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def chooseDevice(modelParam):
    """The torch.device that `modelParam['cuda']` asks for; the CPU where there is no CUDA. With
    several processes, each gets its own GPU, counting up from the one asked for.

    Raises:
        UserError: there are GPUs, but none of that number.
    """
    cuda = modelParam['cuda']
    if not cuda['use_cuda'] or not torch.cuda.is_available():
        return torch.device('cpu')
    number = cuda['device_idx'] + int(os.environ.get('LOCAL_RANK', 0))  # which torchrun sets
    found = torch.cuda.device_count()
    if not 0 <= number < found:
        raise UserError(
            f"modelParam['cuda']['device_idx'] is {cuda['device_idx']}, but the GPUs that this "
            f'process sees are numbered from 0 to {found - 1}. Leave it at 0, choose the GPU by '
            'CUDA_VISIBLE_DEVICES, and start one process per GPU at most.')
    return torch.device('cuda', number)


def describeDevice(device):
    """The GPU's number and name, or the CPU's cores; and the number of processes, if several."""
    processes = f', {worldSize()} processes' if worldSize() > 1 else ''
    if device.type == 'cuda':
        return f'GPU {device.index}, {torch.cuda.get_device_name(device)}{processes}'
    return f'CPU, {availableCores()} cores{processes}'


class Model:
    """What is trained and validated.

    Attributes:
        net: the `imageCaptionModel`, on `device`; in evaluation mode if it is only used.
        loss_fn: the `loss_fn` of the file that defines `imageCaptionModel`.
        optimizer, scheduler: absent when `modelParam['inference']`; the scheduler counts epochs.
        scaler: torch's scaler of the loss, which does nothing except with precision 'float16'.
        start_epoch: the number of epochs that are done, 0 for a new model.
        history: one dict of losses and scores per done epoch.
        feature_mean: [D], mean subtracted from the features, or None.

    Raises:
        UserError: there is no GPU of the number asked for, the device cannot train in the precision
            asked for, the learning rate has keys that the optimizer lacks, or the configuration is
            of another task.
    """

    def __init__(self, config, modelParam, imageCaptionModel):
        self.config = config
        self.modelParam = modelParam
        self.device = chooseDevice(modelParam)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # the default of all that does not name a GPU
        self.precision = self._possiblePrecision()
        seedEverything(config.get('seed', 1))  # the course's has none
        module = imageCaptionModel.__module__
        try:
            self.net = imageCaptionModel(config).to(self.device)
        except ValueError as error:
            raise UserError(f'{module}.py cannot build this network: {error}.') from error
        self.net.train(not modelParam['inference'])
        warnOfForwards(self.net)
        # a file that was loaded by its path may be no module, but its functions know it
        self.loss_fn = (getattr(sys.modules.get(module), 'loss_fn', None)
                        or imageCaptionModel.forward.__globals__['loss_fn'])
        self.regularised = config.get('learningRecipe') == REGULARISED
        if self.regularised:
            dropHiddenStates(self.net)
        self.start_epoch = 0
        self.history = []
        self.feature_mean = None
        self.scaler = lossScaler(self.precision)
        self.captionGraphs = StepGraphs(self)
        if not modelParam['inference']:
            self.optimizer = self._newOptimizer()
            self.graphs = StepGraphs(self)
            self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
                self.optimizer, config['scheduler_milestones'] or [], config['scheduler_factor'])

    def _possiblePrecision(self):
        """config['precision']; float32 where a model is only used, on a device that is slow at the
        precision it was trained in."""
        precision = self.config.get('precision', FLOAT32)
        reason = hindrance(precision, self.device)
        if not reason:
            return precision
        if not self.modelParam['inference']:
            raise UserError(f"config['precision'] cannot be {precision!r} here, since {reason}. "
                            f'Set it to {FLOAT32!r}.')
        print(f'The model was trained in {precision}, but {reason}. It is used in {FLOAT32}.')
        return FLOAT32

    def _newOptimizer(self):
        kind = OPTIMIZERS[self.config['optimizer']]
        options = {'weight_decay': self.config['weight_decay'], **self.config['learningRate']}
        # the fused kind is faster, but rounds differently
        if self.precision != FLOAT32 or self.device.type == 'cuda':
            with contextlib.suppress(TypeError, ValueError, RuntimeError):  # there is none
                return kind(self.net.parameters(), fused=True, **options)
        try:
            return kind(self.net.parameters(), **options)
        except (TypeError, ValueError) as error:
            raise UserError(f"config['learningRate'] cannot be used: {error}.") from error

    def setFeatureMean(self, mean):
        """Sets the mean that is subtracted from the features: [D], any float type; or None."""
        self.feature_mean = None if mean is None else mean.float().to(self.device)

    def features(self, batch):
        """A batch's features as the network sees them: on its device, less `feature_mean`."""
        cnn_features = batch['cnn_features'].to(self.device, non_blocking=True)
        return cnn_features if self.feature_mean is None else cnn_features - self.feature_mean

    def lossOfParts(self, batch):
        """Yields the teacher-forced loss of each truncated part of a batch, summed over its words,
        in nats; nothing for a batch without words.

        The state is carried from part to part, and detached: the gradient of a part stays within
        it. The padding is left out.

        A batch of self-critical training has several captions of each image, side by side, and
        their `advantages` [B], by which the losses of a caption's words are multiplied.
        """
        weights = batch['yWeights']                                      # [B, T, N]
        order = weights.sum((1, 2)).sort(descending=True, stable=True).indices  # the longest first
        cnn_features, state = self.features(batch), None
        rows = order.to(self.device, non_blocking=True)
        captions_per_image = len(order) // len(cnn_features)
        if captions_per_image == 1:
            cnn_features, rows = cnn_features[rows], slice(None)
        for x, y, w, is_word in self.wordsOfParts(batch, order):
            batch_sizes = [size for size in is_word.sum(1).tolist() if size > 0]
            if batch_sizes:
                words = [part[is_word].to(self.device, non_blocking=True) for part in (x, y, w)]
                loss, state = self.lossOfWords(cnn_features, captions_per_image, rows, *words,
                                               batch_sizes, state)
                yield loss

    def wordsOfParts(self, batch, order):
        """Yields xTokens, yTokens, weights and a mask of the words, [T, B] each, of each truncated
        part of a batch; `order` indexes its captions."""
        advantages = batch['advantages'][order] if 'advantages' in batch else 1
        for x, y, w in zip(*(batch[key][order].permute(2, 1, 0)
                             for key in ('xTokens', 'yTokens', 'yWeights'))):
            if self.regularised and self.net.training:
                x = droppedWords(x.t()).t()
            yield x, y, w * advantages, w > 0

    def lossOfWords(self, cnn_features, captions_per_image, order, x, y, w, batch_sizes, state):
        """The loss of packed words, and the state after them. Nothing here waits for a GPU.

        Args:
            cnn_features: what `features` returns, of the images.
            captions_per_image: integer.
            order: the index that sorts the captions of all images for packing.
            x, y, w: [N], words, target words and weights.
            batch_sizes, state: as `logits_of_words` takes them.
        """
        net = wordwise(self.net)
        with self._products():
            # not an index with repetitions, whose gradients add up in no fixed order
            processed = net.process_features(cnn_features).repeat_interleave(captions_per_image, 0)
            prepared = net.prepare(processed[order])
            logits, state = net.logits_of_words(prepared, x, batch_sizes, state)
        arguments = logits.float().unsqueeze(0), y.unsqueeze(0), w.unsqueeze(0)
        smoothed = self.regularised and self.net.training
        loss = smoothedLoss(*arguments) if smoothed else self.loss_fn(*arguments)[0]
        return loss, state.detach()

    def learn(self, batch, words):
        """One step of the optimizer, down the gradient of the loss per word.

        Args:
            batch: a batch with any number of words.
            words: float, by which the summed loss is divided: the batch's number of words, or the
                mean of it over several processes.

        Returns:
            list of detached losses, one per part; by a CUDA graph one sum.
        """
        losses = []
        recorded = self.graphs.loss(batch, words)
        if recorded is not None:
            losses.append(recorded)
        else:
            self.optimizer.zero_grad(set_to_none=not self.graphs.possible)
            for loss in self.lossOfParts(batch):
                self.scaler.scale(loss / words).backward()
                losses.append(loss.detach())
            if worldSize() > 1:
                averageGradients(self.net)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses

    def _products(self):
        return products(self.precision, self.device)

    def _decode(self, decoder, batch, *options):
        """The result of a function of `utils.networks.decoding` for a batch."""
        start_tokens = batch['xTokens'][:, 0, 0].to(self.device)         # [B]
        with torch.no_grad(), self._products():
            return decoder(self.net, self.features(batch), start_tokens, *options)

    def _tokens(self, decoder, batch, *options):
        """As `_decode`, by a CUDA graph where possible, and as lists of tokens."""
        with torch.no_grad(), self._products():
            recorded = self.captionGraphs.tokens(decoder, batch, *options)
        if recorded is None:
            recorded = self._decode(decoder, batch, *options)
        return recorded.tolist()

    def greedyTokens(self, batch):
        """The free-running captions of a batch: B lists of tokens, with or without an end token."""
        return self._tokens(decoding.greedyTokens, batch)

    def sampledTokens(self, batch, number):
        """`number` sampled captions of each image of a batch: B lists of lists of tokens."""
        return self._tokens(decoding.sampledTokens, batch, number)

    def beamTokens(self, batch, beamSize):
        """The best caption of a beam search for each image, as `greedyTokens` returns them."""
        return self._tokens(decoding.bestOfBeam, batch, beamSize)

    def beamSearch(self, batch, beamSize, may_repeat=None):
        """What `decoding.beamSearch` returns for a batch."""
        return self._decode(decoding.beamSearch, batch, beamSize, may_repeat)

    def attentionOver(self, batch, captions):
        """Where the network looks while it makes captions.

        Args:
            batch: a batch of images.
            captions: B lists of tokens, as `greedyTokens` returns them.

        Returns:
            [B, T, K], the attention's weights at each token; None where the network has no
            `attention_over`, or a subclass of it or of its layers has a `forward` of its own.
        """
        replaced = hasattr(self.net, 'logits_of_words') and not isWordwise(self.net)
        if replaced or not isFast(self.net, 'attention_over'):
            return None
        tokens = torch.tensor(captions)                                  # [B, T]
        words_before = torch.cat([batch['xTokens'][:, :1, 0], tokens[:, :-1]], dim=1)
        with torch.no_grad(), self._products():
            weights = self.net.attention_over(self.features(batch), words_before.to(self.device))
        return weights.cpu()
