"""A network with its loss, optimizer and learning-rate schedule, for any of the tasks."""
import random
import sys

import numpy as np
import torch

from utils.files.errors import UserError
from utils.networks.learningRecipe import INFORMED_START, centreInput
from utils.processes.distributed import isMain, localRank, rank, worldSize
from utils.processes.loaderProcesses import availableCores

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
        start_epoch: the number of epochs that are done, 0 for a new model.
        history: one dict of losses and scores per done epoch.

    Raises:
        UserError: there is no GPU of the number asked for, or the configuration is of another task.
    """

    def __init__(self, config, modelParam, imageCaptionModel):
        self.device = chooseDevice(modelParam)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)  # what names no GPU goes there as well
        seedEverything(config['seed'])
        try:
            self.net = imageCaptionModel(config).to(self.device)
        except ValueError as error:
            raise UserError(f'{imageCaptionModel.__module__}.py cannot build this network: {error}.') from error
        if config.get('learningRecipe') == INFORMED_START:
            centreInput(self.net)
        self.loss_fn = sys.modules[imageCaptionModel.__module__].loss_fn
        self.start_epoch = 0
        self.history = []
        if not modelParam['inference']:
            self.optimizer = OPTIMIZERS[config['optimizer']](
                self.net.parameters(), weight_decay=config['weight_decay'], **config['learningRate'])
            self.scheduler = torch.optim.lr_scheduler.MultiStepLR(
                self.optimizer, config['scheduler_milestones'], config['scheduler_factor'])

    def lossOfParts(self, batch):
        """Yields the teacher-forced loss of each truncated part of a batch, summed over its words, in nats.

        The state is carried from part to part, and detached: the gradient of a part stays within it. A network with
        `logits_of_words` computes where there are words alone, any other all steps through `forward`.
        """
        weights = batch['yWeights']                                              # [B, T, N]
        longest_first = weights.sum((1, 2)).sort(descending=True, stable=True).indices
        cnn_features, x, y, weights = (batch[key][longest_first] for key in ('cnn_features', 'xTokens', 'yTokens', 'yWeights'))
        cnn_features = cnn_features.to(self.device, non_blocking=True)
        state = None
        for part in range(batch['numbOfTruncatedSequences']):
            part_of_each = (x[:, :, part], y[:, :, part], weights[:, :, part])   # [B, T]
            if hasattr(self.net, 'logits_of_words'):
                has_word = part_of_each[2].t() > 0                               # [T, B]
                sizes = [size for size in has_word.sum(1).tolist() if size > 0]
                words, right, ones = (rows.t()[has_word].to(self.device) for rows in part_of_each)
                logits, state = self.net.logits_of_words(cnn_features, words, sizes, state)
                sum_loss, _ = self.loss_fn(logits.unsqueeze(0), right.unsqueeze(0), ones.unsqueeze(0))
            else:
                tokens, right, weight = (rows.to(self.device) for rows in part_of_each)
                logits, state = self.net(cnn_features, tokens, True, state)
                sum_loss, _ = self.loss_fn(logits, right, weight)
            state = state.detach()
            yield sum_loss

    def greedyTokens(self, batch):
        """The free-running captions of a batch: B lists of tokens, an end token among them or not."""
        cnn_features = batch['cnn_features'].to(self.device, non_blocking=True)
        start = batch['xTokens'][:, 0, 0].to(self.device)                        # [B]
        with torch.no_grad():
            if hasattr(self.net, 'greedy_tokens'):
                return self.net.greedy_tokens(cnn_features, start).tolist()
            logits, _ = self.net(cnn_features, start.unsqueeze(1), False)        # [B, 40, V]
        return logits.argmax(dim=-1).tolist()

    def beamTokens(self, batch, beamSize):
        """The captions of a batch by beam search, as `greedyTokens` returns them; only for a network with `beam_tokens`."""
        with torch.no_grad():
            return self.net.beam_tokens(batch['cnn_features'].to(self.device, non_blocking=True),
                                        batch['xTokens'][:, 0, 0].to(self.device), beamSize).tolist()

    def attentionOver(self, batch, captions):
        """Where the network looks while it says captions.

        Args:
            batch: a batch of images.
            captions: B lists of tokens, as `greedyTokens` returns them.

        Returns:
            [B, T, detections], the weights of the attention layer when it says each token; None where the network has none.
        """
        if not hasattr(self.net, 'attention_layer'):
            return None
        said = torch.tensor(captions)                                            # [B, T]
        given = torch.cat([batch['xTokens'][:, :1, 0], said[:, :-1]], dim=1)     # [B, T], each token's predecessor
        weights = []
        hook = self.net.attention_layer.register_forward_hook(lambda layer, seen, looked: weights.append(looked))
        try:
            with torch.no_grad():
                self.net(batch['cnn_features'].to(self.device), given.to(self.device), True)
        finally:
            hook.remove()
        return torch.cat(weights).unflatten(0, given.t().shape).transpose(0, 1).cpu()  # all captions' first step first
