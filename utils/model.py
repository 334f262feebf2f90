"""A network with its loss, optimizer and learning-rate schedule, for any of the tasks."""
import contextlib
import os
import random
import sys

import numpy as np
import torch

from utils.files.errors import UserError
from utils.networks import decoding
from utils.networks.learningRecipe import (
    REGULARISED,
    dropHiddenElements,
    droppedWords,
    smoothedLoss,
)
from utils.networks.otherNetworks import wordwise
from utils.networks.precision import FLOAT32, hindrance, lossScaler, products
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
    """The torch.device that `modelParam['cuda']` asks for; the CPU where there is no CUDA. Of
    several processes on a machine each has its own GPU, numbered from the one asked for.

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
        net: the `imageCaptionModel`, on `device`.
        loss_fn: the `loss_fn` of the file that defines `imageCaptionModel`.
        optimizer, scheduler: absent when `modelParam['inference']`; the scheduler counts epochs.
        scaler: torch's scaler of the loss, which does nothing except with precision 'float16'.
        start_epoch: the number of epochs that are done, 0 for a new model.
        history: one dict of losses and scores per done epoch.
        feature_mean: [D], mean subtracted from the features, or None.

    Raises:
        UserError: there is no GPU of the number asked for, the device cannot train in the precision
            asked for, or the configuration is of another task.
    """

    def __init__(self, config, modelParam, imageCaptionModel):
        self.config = config
        self.modelParam = modelParam
        self.device = chooseDevice(modelParam)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # the default of all that does not name a GPU
        self.precision = self._possiblePrecision()
        seedEverything(config['seed'])
        module = imageCaptionModel.__module__
        try:
            self.net = imageCaptionModel(config).to(self.device)
        except ValueError as error:
            raise UserError(f'{module}.py cannot build this network: {error}.') from error
        self.loss_fn = sys.modules[module].loss_fn
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
        """config['precision']; float32 where a model is only used, on a device that is slow at the
        precision it was trained in."""
        precision = self.config.get('precision', FLOAT32)
        reason = hindrance(precision, self.device)
        if not reason:
            return precision
        if not self.modelParam['inference']:
            raise UserError(f"config['precision'] cannot be {precision!r} here, since {reason}. "
                            f'Set it to {FLOAT32!r}.')
        print(f'The model was trained in {precision}, but {reason}. It is used in {FLOAT32}.',
              flush=True)
        return FLOAT32

    def _newOptimizer(self):
        kind = OPTIMIZERS[self.config['optimizer']]
        options = {**self.config['learningRate'], 'weight_decay': self.config['weight_decay']}
        if self.precision != FLOAT32:  # the fused kind is faster, but rounds differently
            with contextlib.suppress(TypeError, RuntimeError):  # this torch has none
                return kind(self.net.parameters(), fused=True, **options)
        return kind(self.net.parameters(), **options)

    def setFeatureMean(self, mean):
        """Has `mean`, [D] of any float type or None, subtracted from the features."""
        self.feature_mean = None if mean is None else mean.float().to(self.device)

    def features(self, batch):
        """A batch's features as the network sees them: on its device, less `feature_mean`."""
        cnn_features = batch['cnn_features'].to(self.device, non_blocking=True)
        return cnn_features if self.feature_mean is None else cnn_features - self.feature_mean

    def lossOfParts(self, batch):
        """Yields the teacher-forced loss of each truncated part of a batch, summed over its words,
        in nats.

        The state is carried from part to part, and detached: the gradient of a part stays within
        it. The padding is left out.

        A batch of self-critical training has several captions of each image, side by side, and
        their `advantages` [B], by which the losses of a caption's words are multiplied.
        """
        weights = batch['yWeights']                                      # [B, T, N]
        longest_first = weights.sum((1, 2)).sort(descending=True, stable=True).indices
        advantages = batch['advantages'][longest_first] if 'advantages' in batch else 1
        cnn_features = self.features(batch)
        captions_per_image = len(weights) // len(cnn_features)
        order = longest_first.to(self.device)
        if captions_per_image == 1:
            cnn_features = cnn_features[order]
        regularised = self.regularised and self.net.training
        net, state = wordwise(self.net), None
        for x, y, w in zip(*(batch[key][longest_first].permute(2, 1, 0)
                             for key in ('xTokens', 'yTokens', 'yWeights'))):  # [T, B] each
            if regularised:
                x = droppedWords(x.t()).t()
            is_word = w > 0
            x, y, w = (rows[is_word].to(self.device) for rows in (x, y, w * advantages))  # [N]
            batch_sizes = [size for size in is_word.sum(1).tolist() if size > 0]
            with self._products():
                processed = net.process_features(cnn_features)
                if captions_per_image > 1:
                    # not by an index with repetitions, whose gradients add up in no fixed order
                    processed = processed.repeat_interleave(captions_per_image, dim=0)[order]
                prepared = net.prepare(processed)
                logits, state = net.logits_of_words(prepared, x, batch_sizes, state)
            state = state.detach()
            arguments = logits.float().unsqueeze(0), y.unsqueeze(0), w.unsqueeze(0)
            yield smoothedLoss(*arguments) if regularised else self.loss_fn(*arguments)[0]

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
        if worldSize() > 1:
            averageGradients(self.net)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return values

    def _products(self):
        return products(self.precision, self.device)

    def _decode(self, decoder, batch, *options):
        """What one of `utils.networks.decoding`'s functions makes of a batch."""
        start_tokens = batch['xTokens'][:, 0, 0].to(self.device)         # [B]
        with torch.no_grad(), self._products():
            return decoder(self.net, self.features(batch), start_tokens, *options)

    def greedyTokens(self, batch):
        """The free-running captions of a batch: B lists of tokens, an end token among them or not.
        """
        return self._decode(decoding.greedyTokens, batch).tolist()

    def sampledTokens(self, batch, number):
        """`number` sampled captions of each image of a batch: B lists of lists of tokens."""
        return self._decode(decoding.sampledTokens, batch, number).tolist()

    def beamTokens(self, batch, beamSize):
        """The best caption of a beam search for each image, as `greedyTokens` returns them."""
        captions, _ = self.beamSearch(batch, beamSize)
        return captions[:, 0].tolist()

    def beamSearch(self, batch, beamSize):
        """What `decoding.beamSearch` returns for a batch."""
        return self._decode(decoding.beamSearch, batch, beamSize)

    def attentionOver(self, batch, captions):
        """Where the network looks while it makes captions.

        Args:
            batch: a batch of images.
            captions: B lists of tokens, as `greedyTokens` returns them.

        Returns:
            [B, T, K], the attention's weights at each token; None where the network has no
            `attention_over`.
        """
        if not hasattr(self.net, 'attention_over'):
            return None
        tokens = torch.tensor(captions)                                  # [B, T]
        words_before = torch.cat([batch['xTokens'][:, :1, 0], tokens[:, :-1]], dim=1)
        with torch.no_grad(), self._products():
            weights = self.net.attention_over(self.features(batch), words_before.to(self.device))
        return weights.cpu()
