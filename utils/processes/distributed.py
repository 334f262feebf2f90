"""One training by several processes, as torchrun starts them.

The main process, rank 0, does all that a single process does; the others only train, each on its
share of every batch. Numbers and barriers go by gloo, gradients by gloo between CPUs and by nccl
between GPUs. A process that torchrun has not started is the main one of one.
"""
import contextlib
import datetime
import io
import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import BatchSampler, DistributedSampler

# while the main process reads files or scores; when a process ends, nobody waits for it
LONGEST_WAIT = datetime.timedelta(days=1)

_store = None  # torchrun's key-value store


@contextlib.contextmanager
def joined():
    """Within this, processes started by torchrun are a group, of which the main one prints."""
    global _store
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # missing where torch has no torchrun
    store, number, size = next(rendezvous('env://'))
    dist.init_process_group('gloo', store=store, rank=number, world_size=size, timeout=LONGEST_WAIT)
    _store = store
    with contextlib.redirect_stdout(sys.stdout if isMain() else io.StringIO()):
        yield
    dist.barrier()  # nobody leaves while others still need it
    dist.destroy_process_group()


def rank():
    """This process's number among all, from 0."""
    return 0 if _store is None else dist.get_rank()


def worldSize():
    """The number of processes, on all machines."""
    return 1 if _store is None else dist.get_world_size()


def localRank():
    """This process's number among those on its machine, from 0."""
    return 0 if _store is None else int(os.environ['LOCAL_RANK'])


def isMain():
    """Whether this is the process that validates, prints and writes."""
    return rank() == 0


def isFirstToEnd():
    """Whether no other process has asked this before."""
    try:
        return _store is None or _store.add('ended', 1) == 1
    except RuntimeError:  # the store went with a process that ended earlier
        return False


@contextlib.contextmanager
def mainFirst():
    """The main process goes through the block before the others do."""
    if not isMain():
        dist.barrier()
    yield
    if isMain() and worldSize() > 1:
        dist.barrier()


def fromMain(make):
    """What `make()` returns in the main process, which all processes get; it must be picklable."""
    if worldSize() == 1:
        return make()
    values = [make() if isMain() else None]
    dist.broadcast_object_list(values)
    return values[0]


def averaged(number):
    """The mean of the processes' numbers, in every process."""
    return number if worldSize() == 1 else _reduced(number, dist.ReduceOp.SUM) / worldSize()


def _reduced(number, operation):
    tensor = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(tensor, operation)
    return tensor.item()


class ShareOfBatches(BatchSampler):
    """This process's share of the batches that a single process would draw.

    The sampler yields (index, epoch). Yields lists of (index, epoch, learned), of the same length
    in every process; where a batch has too few images for that, some are repeated with `learned`
    False.
    """

    def __iter__(self):
        for batch in super().__iter__():
            share = DistributedSampler(batch, worldSize(), rank(), shuffle=False)
            yield [(*batch[position], rank() + row * worldSize() < len(batch))
                   for row, position in enumerate(share)]


class LossOfShare(nn.Module):
    """The loss of this process's share of a batch, as a module that torch can make parallel.

    Args:
        model: a `Model`.
    """

    def __init__(self, model):
        super().__init__()
        self.net = model.net
        self.lossOfParts = model.lossOfParts

    def forward(self, batch, parts):
        """The loss summed over all words of the share, in nats.

        The network runs `parts` times in every process, since SyncBatchNorm waits for all, and
        uses every parameter, since the exchange of gradients waits for each. Where a share has
        fewer truncated parts, or no words at all, its first part is repeated and counts nothing.

        Args:
            batch: the share.
            parts: the most truncated parts that a process has in this batch.
        """
        losses = []
        if batch['yWeights'].any():
            losses += self.lossOfParts(batch)
        else:
            batch = {**batch, 'yWeights': torch.ones_like(batch['yWeights'])}
        for _ in range(parts - len(losses)):
            losses.append(0 * next(self.lossOfParts(batch)))
        return sum(losses)


def lossOfShares(model):
    """A function like `model.lossOfParts` for this process's share of a batch.

    It returns one loss, summed over the parts, whose gradients are averaged over all processes.
    All start from the main one's weights. Batch normalisation is over the images of all GPUs; on
    CPUs, where torch has no such layer, it is over the share's, and the main process's running
    statistics are kept.
    """
    group = None
    if model.device.type == 'cuda':
        group = dist.new_group(backend='nccl')
        model.net = nn.SyncBatchNorm.convert_sync_batchnorm(model.net, group)
    warnings.filterwarnings('ignore', 'Grad strides do not match')  # of biases [1, H]: harmless
    loss = nn.parallel.DistributedDataParallel(LossOfShare(model), process_group=group)

    def lossOfShare(batch):
        parts = _reduced(batch['numbOfTruncatedSequences'], dist.ReduceOp.MAX)
        return [loss(batch, int(parts))]

    return lossOfShare
