"""A network with its loss, optimizer and learning-rate schedule, for any of the tasks."""
import contextlib
import random
import sys

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from utils.files.errors import UserError
from utils.networks.decoding import beamSearch, greedyTokens, sampledTokens
from utils.networks.learningRecipe import REGULARISED, dropHiddenElements, droppedWords, smoothedLoss
from utils.networks.otherNetworks import attentionOver
from utils.networks.precision import FLOAT32, hindrance, lossScaler, products
from utils.processes.cores import availableCores
from utils.processes.distributed import isMain, localRank, rank, worldSize

OPTIMIZERS = {'adamW': torch.optim.AdamW, 'adam': torch.optim.Adam, 'SGD': torch.optim.SGD,
              'RMSprop': torch.optim.RMSprop}


def seedEverything(seed, epoch=0):
    """Seeds python, numpy and torch (CPU and GPU) for one epoch, so that a run resumed there goes on as it would have.
    Every further process of a training has seeds of its own, so that it drops out other elements."""
    seed = random.Random(f'{seed} {epoch}' if isMain() else f'{seed} {epoch} {rank()}').getrandbits(32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def chooseDevice(modelParam):
    """The torch.device that `modelParam['cuda']` asks for; the CPU where there is no CUDA. Of several processes on a
    machine each has a GPU of its own, numbered from the one asked for.

    Raises:
        UserError: CUDA is there, but not a GPU of that number.
    """
    cuda = modelParam['cuda']
    if not cuda['use_cuda'] or not torch.cuda.is_available():
        return torch.device('cpu')
    number = cuda['device_idx'] + localRank()
    if not 0 <= number < torch.cuda.device_count():
        raise UserError(f"modelParam['cuda']['device_idx'] is {cuda['device_idx']}, but the GPUs that this process sees are "
                        f'numbered from 0 to {torch.cuda.device_count() - 1}. Leave it at 0 and choose the GPU by '
                        'CUDA_VISIBLE_DEVICES.' + ' Start one process per GPU at most.' * (worldSize() > 1))
    return torch.device('cuda', number)


def describeDevice(device):
    """A torch.device in words: the GPU's number and name, or the CPU's cores; and how many processes train, if several."""
    processes = f', {worldSize()} processes' if worldSize() > 1 else ''
    if device.type == 'cuda':
        return f'GPU {device.index}, {torch.cuda.get_device_name(device)}{processes}'
    return f'CPU, {availableCores()} cores{processes}'


class Model:
    """What is trained and validated.

    Attributes:
        net: the `imageCaptionModel`, on `device`.
        loss_fn: the `loss_fn` of the file that defines `imageCaptionModel`.
        optimizer, scheduler: absent when `modelParam['inference']`; the scheduler counts epochs.
        scaler: torch's scaler of the loss, which does something with precision 'float16' alone.
        start_epoch: the number of epochs that are done, 0 for a new model.
        history: one dict of losses and scores per done epoch.
        feature_mean: [D], what the network sees its features less of; None for nothing.

    Raises:
        UserError: there is no GPU of the number asked for, the device cannot train in the precision asked for, or the
            configuration is of another task.
    """

    def __init__(self, config, modelParam, imageCaptionModel):
        self.config = config
        self.modelParam = modelParam
        self.device = chooseDevice(modelParam)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # what names no GPU goes there as well
        self.precision = self._possiblePrecision()
        seedEverything(config['seed'])
        try:
            self.net = imageCaptionModel(config).to(self.device)
        except ValueError as error:
            raise UserError(f'{imageCaptionModel.__module__}.py cannot build this network: {error}.') from error
        self.loss_fn = sys.modules[imageCaptionModel.__module__].loss_fn
        self.regularised = config.get('learningRecipe') == REGULARISED
        if self.regularised:
            dropHiddenElements(self.net)
        self.start_epoch = 0
        self.history = []
        self.feature_mean = None
        self.scaler = lossScaler(self.precision)
        if not modelParam['inference']:
            self.optimizer = self._newOptimizer()
            self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
                self.optimizer, config['scheduler_milestones'] or [], config['scheduler_factor'])

    def _possiblePrecision(self):
        """The precision of the configuration; float32 where a model that was trained in another one is only used here."""
        precision = self.config.get('precision', FLOAT32)
        reason = hindrance(precision, self.device)
        if not reason:
            return precision
        if not self.modelParam['inference']:
            raise UserError(f"config['precision'] cannot be {precision!r} here, since {reason}. Set it to {FLOAT32!r}.")
        print(f'The model was trained in {precision}, but {reason}. It is used in {FLOAT32}.', flush=True)
        return FLOAT32

    def _newOptimizer(self):
        kind, options = OPTIMIZERS[self.config['optimizer']], {**self.config['learningRate'],
                                                               'weight_decay': self.config['weight_decay']}
        if self.precision != FLOAT32:
            with contextlib.suppress(TypeError, RuntimeError):  # where torch has none for this device
                return kind(self.net.parameters(), fused=True, **options)  # which rounds otherwise, and is faster
        return kind(self.net.parameters(), **options)

    def setFeatureMean(self, mean):
        """Has the network see its features less `mean`, [D] of any float type, or as they are where it is None."""
        self.feature_mean = None if mean is None else mean.float().to(self.device)

    def features(self, batch):
        """A batch's features as the network sees them: on its device, less the training images' mean where it was taken."""
        cnn_features = batch['cnn_features'].to(self.device, non_blocking=True)
        return cnn_features if self.feature_mean is None else cnn_features - self.feature_mean

    def lossOfParts(self, batch):
        """Yields the teacher-forced loss of each truncated part of a batch, summed over its words, in nats.

        The state is carried from part to part, and detached: the gradient of a part stays within it. A network with
        `logits_of_words` computes where there are words alone, any other all steps through `forward`.

        A batch of self-critical training has several captions of each image, side by side, and their `advantages` [B]: the
        losses of a caption's words count that many times.
        """
        weights = batch['yWeights']                                              # [B, T, N]
        longest_first = weights.sum((1, 2)).sort(descending=True, stable=True).indices
        sorted_batch = {key: batch[key][longest_first] for key in ('xTokens', 'yTokens', 'yWeights')}
        cnn_features = self.features(batch)
        of_an_image = len(weights) // len(cnn_features)                          # captions
        images = torch.div(longest_first, of_an_image, rounding_mode='floor').to(self.device)  # each caption's
        if of_an_image == 1:
            cnn_features, images = cnn_features[images], slice(None)
        advantages = batch['advantages'][longest_first].unsqueeze(1) if 'advantages' in batch else 1
        state = None
        for part in range(batch['numbOfTruncatedSequences']):
            x, y, weights = (sorted_batch[key][:, :, part] for key in ('xTokens', 'yTokens', 'yWeights'))  # [B, T]
            if self.regularised and self.net.training:
                x = droppedWords(x)
            if hasattr(self.net, 'logits_of_words'):
                has_word = weights.t() > 0                                       # [T, B]
                sizes = has_word.sum(1)
                words, y, weights = (rows.t()[has_word].to(self.device) for rows in (x, y, weights * advantages))  # [N]
                with self._products():
                    processed = self.net.process_features(cnn_features)[images]
                    logits, state = self.net.logits_of_words(processed, PackedSequence(words, sizes[sizes > 0]), state)
                logits, y, weights = (rows.unsqueeze(0) for rows in (logits, y, weights))
            else:
                x, y, weights = (rows.contiguous().to(self.device) for rows in (x, y, weights * advantages))
                with self._products():
                    logits, state = self.net(cnn_features[images], x, True, state)
                logits = logits.float()
            state = state.detach()
            if self.regularised and self.net.training:
                yield smoothedLoss(logits, y, weights)
            else:
                yield self.loss_fn(logits, y, weights)[0]

    def learn(self, losses, words):
        """One step of the optimizer, down the gradient of the loss per word.

        Args:
            losses: the losses that `lossOfParts` yields.
            words: float, the number of words that they are summed over.

        Returns:
            list of the losses, without their gradients.
        """
        self.optimizer.zero_grad(set_to_none=True)
        values = []
        for loss in losses:
            self.scaler.scale(loss / words).backward()
            values.append(loss.detach())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return values

    def _products(self):
        return products(self.precision, self.device)

    def greedyTokens(self, batch):
        """The free-running captions of a batch: B lists of tokens, an end token among them or not."""
        cnn_features, start = self.features(batch), self._startTokens(batch)
        with torch.no_grad(), self._products():
            if hasattr(self.net, 'next_words'):
                return greedyTokens(self.net, cnn_features, start).tolist()
            logits, _ = self.net(cnn_features, start.unsqueeze(1), False)        # [B, 40, V]
        return logits.argmax(dim=-1).tolist()

    def sampledTokens(self, batch, number):
        """As many captions of each image of a batch, said by chance: B lists of lists of tokens, ends among them or not."""
        with torch.no_grad(), self._products():
            return sampledTokens(self.net, self.features(batch), self._startTokens(batch), number).tolist()

    def beamTokens(self, batch, beamSize):
        """The best caption of a beam search for each image of a batch, as `greedyTokens` returns them."""
        captions, _ = self.beamSearch(batch, beamSize)
        return captions[:, 0].tolist()

    def beamSearch(self, batch, beamSize):
        """The best captions of each image of a batch, and their log-probabilities, as `decoding.beamSearch` returns them."""
        with torch.no_grad(), self._products():
            return beamSearch(self.net, self.features(batch), self._startTokens(batch), beamSize)

    def _startTokens(self, batch):
        return batch['xTokens'][:, 0, 0].to(self.device)                         # [B]

    def attentionOver(self, batch, captions):
        """Where the network looks while it says captions.

        Args:
            batch: a batch of images.
            captions: B lists of tokens, as `greedyTokens` returns them.

        Returns:
            [B, T, detections], the weights of the attention when it says each token; None where the network has none.
        """
        tokens = torch.tensor(captions)                                          # [B, T]
        given = torch.cat([batch['xTokens'][:, :1, 0], tokens[:, :-1]], dim=1).to(self.device)  # [B, T], each one's predecessor
        with torch.no_grad(), self._products():
            weights = attentionOver(self.net, self.features(batch), given)
        return None if weights is None else weights.cpu()
