"""The bar that shows how far a pass over the images is."""
from tqdm.auto import tqdm

from utils.processes.distributed import isMain


def progressBar(iterable, description, modelParam):
    """A bar in a terminal or a notebook; nothing where the output goes to a file, nor beside the main process's."""
    return tqdm(iterable, desc=description, leave=False,
                disable=not isMain() or (False if modelParam['inNotebook'] else None))
