"""One training by several processes, as torchrun starts them: who they are, and what they do together.

The main process, rank 0, does all that one process alone does; the others only train, each its share of every batch. Numbers
and waiting go by gloo, gradients by gloo between CPUs and by nccl between GPUs. A process that torchrun has not started is
the main one of one.
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

LONGEST_WAIT = datetime.timedelta(days=1)  # while the main process reads files or scores; the end of a process ends all waits

_store = None  # torchrun's table of what the processes tell each other


@contextlib.contextmanager
def joined():
    """Within this a process that torchrun has started is one of several, of which only the main one prints."""
    global _store
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # which a torch that was built without torchrun lacks
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


def localWorldSize():
    """The number of processes on this machine."""
    return 1 if _store is None else int(os.environ['LOCAL_WORLD_SIZE'])


def isMain():
    """Whether this is the process that validates, prints and writes."""
    return rank() == 0


def isFirstToEnd():
    """Whether no other process has asked this before: of all that end for one reason, the first one says it."""
    try:
        return _store is None or _store.add('ended', 1) == 1
    except RuntimeError:  # the table has gone with a process that ended earlier
        return False


@contextlib.contextmanager
def mainFirst():
    """The other processes come to the block when the main one is through."""
    if worldSize() > 1 and not isMain():
        dist.barrier()
    yield
    if worldSize() > 1 and isMain():
        dist.barrier()


def fromMain(make):
    """What `make()` returns in the main process, for every process; anything that can be pickled."""
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
    """This process's share of the batches that one process alone would draw from a sampler of (index, epoch).

    Yields lists of (index, epoch, learned), of the same length in every process. Where a batch does not suffice for that,
    images stand in a second time, with learned False.
    """

    def __iter__(self):
        for batch in super().__iter__():
            share = DistributedSampler(batch, worldSize(), rank(), shuffle=False)
            yield [(*batch[position], rank() + row * worldSize() < len(batch)) for row, position in enumerate(share)]


class LossOfShare(nn.Module):
    """The loss of this process's share of a batch, as one step from inputs to a result, which torch can make parallel.

    Args:
        model: a `Model`.
    """

    def __init__(self, model):
        super().__init__()
        self.net = model.net
        self.lossOfParts = model.lossOfParts

    def forward(self, batch, parts):
        """The loss summed over all words of the share, in nats.

        The network runs `parts` times, the same in every process, since SyncBatchNorm waits for all, and every parameter
        takes part, since the exchange of gradients waits for each. Where a share has fewer truncated parts than that, or no
        words at all, its first part stands in and counts nothing.

        Args:
            batch: the share.
            parts: the most truncated parts that a process has in this batch.
        """
        has_words = bool(batch['yWeights'].any())
        losses = list(self.lossOfParts(batch)) if has_words else []
        stand_in = batch if has_words else {**batch, 'yWeights': torch.ones_like(batch['yWeights'])}
        return sum(losses + [0 * next(self.lossOfParts(stand_in)) for _ in range(parts - len(losses))])


def lossOfShares(model):
    """A function like `model.lossOfParts` whose only loss is that of the share, summed over its parts, and whose gradients
    are the mean over all processes, which all start from the main one's weights.

    Batch normalisation is over the images of all GPUs; on CPUs, where torch has no such layer, over those of the share, and
    the main process's running statistics are kept.
    """
    group = None
    if model.device.type == 'cuda':
        group = dist.new_group(backend='nccl')
        model.net = nn.SyncBatchNorm.convert_sync_batchnorm(model.net, group)
    warnings.filterwarnings('ignore', 'Grad strides do not match')  # of biases [1, H], which are copied soon enough
    loss = nn.parallel.DistributedDataParallel(LossOfShare(model), process_group=group)
    return lambda batch: [loss(batch, int(_reduced(batch['numbOfTruncatedSequences'], dist.ReduceOp.MAX)))]
