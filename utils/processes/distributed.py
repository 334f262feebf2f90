"""One training by several processes on one machine, as torchrun starts them.

The main process, rank 0, does all that a single process does; the others only train, each on its
share of every batch. Batch normalisation, where a network has it, is over that share. Numbers and
barriers go by gloo, gradients by gloo between CPUs and by nccl between GPUs. Without torchrun there
is only the main process.
"""
import contextlib
import datetime
import functools
import io
import os
import random
import sys

import torch
import torch.distributed as dist
from torch.utils.data import BatchSampler

# while the main process reads files or scores; when a process ends, nobody waits for it
LONGEST_WAIT = datetime.timedelta(days=1)

_store = None  # torchrun's key-value store


@contextlib.contextmanager
def joined():
    """A context: processes started by torchrun form a group, and only the main one prints."""
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
    """The number of processes."""
    return 1 if _store is None else dist.get_world_size()


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
    """Calls `make()` in the main process; all get its result, which must be picklable."""
    if worldSize() == 1:
        return make()
    values = [make() if isMain() else None]
    dist.broadcast_object_list(values)
    return values[0]


def averaged(number):
    """The mean of the processes' numbers, in every process."""
    if worldSize() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.item() / worldSize()


class ShareOfBatches(BatchSampler):
    """The sampler of training batches: every index of a data set once, in an order that (seed,
    epoch) alone decides. Several processes share each batch.

    Yields lists of (index, epoch, learned). If a batch has fewer images than there are processes,
    an empty share becomes the batch's first image, with `learned` False.

    Attributes:
        epoch: that of the next pass.
    """

    def __init__(self, length, batch_size, seed):
        super().__init__(range(length), batch_size, drop_last=False)
        self.seed = seed
        self.epoch = 0

    def __iter__(self):
        order = list(self.sampler)
        random.Random(f'{self.seed} {self.epoch}').shuffle(order)
        for batch in BatchSampler(order, self.batch_size, drop_last=False):
            share = [(index, self.epoch, True) for index in batch[rank()::worldSize()]]
            yield share or [(batch[0], self.epoch, False)]


def startAlike(net):
    """Copies the main process's parameters and running statistics to every process."""
    for tensor in net.state_dict().values():
        dist.broadcast(tensor, 0, _group(tensor.device.type))


def averageGradients(net):
    """Averages the processes' gradients; those of a share without words count as 0."""
    for parameter in net.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad, group=_group(parameter.device.type))
            parameter.grad /= worldSize()


@functools.cache
def _group(device_type):
    """The group that exchanges tensors of a device; gloo is slow between GPUs."""
    return dist.new_group(timeout=LONGEST_WAIT, backend='nccl' if device_type == 'cuda' else 'gloo')
