"""A loader of images that reads them by as many processes as there are cores and memory for."""
import math

import torch

from utils.processes.cores import availableCores
from utils.processes.distributed import localWorldSize
from utils.processes.loaderProcesses import FileLoader, sharedMemory

BATCHES_IN_FLIGHT = 4  # of a loader process in shared memory: two waiting, one in the making, one in use


def imageLoader(dataset, collate, modelParam, bytes_of_image, images_per_process=1, batches=None, keep_processes=False, **options):
    """A `FileLoader` of batches of `modelParam['batch_size']` images.

    Args:
        dataset, collate: what makes images, and a batch of them.
        bytes_of_image: the memory that an image takes in a batch.
        images_per_process: with fewer, a further process is not worth its start.
        batches: a batch sampler, or None for all images in their order.
        keep_processes: whether they outlive a pass.
        options: further ones of `DataLoader`.
    """
    batch_size = modelParam['batch_size']
    workers = min(modelParam['numbOfCPUThreadsUsed'], availableCores() // localWorldSize(), -(-len(dataset) // batch_size),
                  len(dataset) // images_per_process, sharedMemory() // (BATCHES_IN_FLIGHT * max(1, batch_size * bytes_of_image)))
    return FileLoader(dataset, **({'batch_sampler': batches} if batches else {'batch_size': batch_size}), collate_fn=collate,
                      num_workers=workers, persistent_workers=keep_processes and workers > 0, **options,
                      generator=torch.Generator())  # its own, so that loading never moves the global one


def bytesOfFeatures(shape):
    """The memory of an image's float32 features."""
    return 4 * math.prod(shape)
