"""Reads pickles and checkpoints of strangers: numpy arrays and scalars, CPU tensors, plain Python values, nothing else."""
import collections
import contextlib
import inspect
import io
import mmap
import os
import pickle
import types

import numpy as np
import torch

from utils.files.regular import openRegular

try:
    from numpy._core import multiarray, numeric
except ImportError:  # numpy 1
    from numpy.core import multiarray, numeric

try:
    import resource
except ImportError:  # Windows
    resource = None

MEMORY_OF_A_PICKLE = 10 ** 9  # bytes; a file of the course takes less than a thousandth of that


def _latin1Bytes(text, encoding):
    """What `_codecs.encode` is asked for where pickle protocol 2 and older keep bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it asks for the text encoding {encoding!r}')
    return text.encode('latin1')


def _torchFromBytes(data):
    """A tensor's memory, which torch writes as a file of its own inside a pickle."""
    return _torchLoad(io.BytesIO(data))


STORAGES = [name for name in dir(torch) if name.endswith('Storage') and not name.startswith('_')]
ALLOWED = {
    **{(module, name): function
       for core in ('numpy.core', 'numpy._core')  # numpy 1 and 2
       for module, name, function in ((f'{core}.multiarray', '_reconstruct', multiarray._reconstruct),
                                      (f'{core}.multiarray', 'scalar', multiarray.scalar),
                                      (f'{core}.numeric', '_frombuffer', numeric._frombuffer))},
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('collections', 'Counter'): collections.Counter,
    ('builtins', 'set'): set,
    ('_codecs', 'encode'): _latin1Bytes,
    ('torch.storage', '_load_from_bytes'): _torchFromBytes,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    **{('torch', name): getattr(torch, name) for name in STORAGES},
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that builds only what `ALLOWED` lists. Anything else raises `pickle.UnpicklingError`, and is not run."""

    def find_class(self, module, name):
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which is no array, tensor or plain value; '
                                         'nothing of it was run') from None


def _load(file, **options):
    return RestrictedUnpickler(file, **options).load()


def _torchLoad(file):
    """torch.load by the restricted unpickler."""
    restricted = types.SimpleNamespace(__name__='restricted', Unpickler=RestrictedUnpickler, load=_load)
    options = {'weights_only': False} if _TORCH_HAS_WEIGHTS_ONLY else {}
    return torch.load(file, map_location='cpu', pickle_module=restricted, **options)


_TORCH_HAS_WEIGHTS_ONLY = 'weights_only' in inspect.signature(torch.load).parameters


_MEMORY_CAN_BE_LIMITED = resource is not None and os.path.exists('/proc/self/statm')


@contextlib.contextmanager
def _limitedMemory():
    """A few wrong bytes can make a pickle ask for all the memory there is: within, it gets a MemoryError instead (on Linux)."""
    if not _MEMORY_CAN_BE_LIMITED:
        yield
        return
    with open('/proc/self/statm', 'rb', buffering=0) as f:
        used = int(f.read(100).split()[0]) * mmap.PAGESIZE
    limits = resource.getrlimit(resource.RLIMIT_AS)
    stricter = min([used + MEMORY_OF_A_PICKLE] + [limit for limit in limits if limit != resource.RLIM_INFINITY])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (stricter, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def loadPickle(path):
    """The value in the pickle file `path`.

    Raises:
        OSError: the file cannot be opened, or is a pipe or a device.
        pickle.UnpicklingError: the file asks for anything but arrays, tensors and plain values.
        Exception: whatever pickle raises on a broken file.
    """
    with openRegular(path) as f, _limitedMemory():
        return _load(f)


def loadCheckpoint(path):
    """The checkpoint in the file `path`, its tensors on the CPU; errors as `loadPickle`'s."""
    if _TORCH_HAS_WEIGHTS_ONLY:
        return torch.load(path, map_location='cpu', weights_only=True)
    return _torchLoad(path)
