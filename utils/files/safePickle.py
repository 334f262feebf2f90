"""Reads pickles and checkpoints that may come from anybody.

Only numpy arrays and scalars, CPU tensors and plain Python values are built, nothing else.
"""
import collections
import contextlib
import inspect
import io
import pickle
import types

import numpy as np
import torch

from utils.files.errors import openRegular

try:
    from numpy._core import multiarray, numeric
except ImportError:  # numpy 1
    from numpy.core import multiarray, numeric


ALLOWED = {
    'numpy.core.multiarray._reconstruct': multiarray._reconstruct,
    'numpy.core.multiarray.scalar': multiarray.scalar,
    'numpy.core.numeric._frombuffer': numeric._frombuffer,
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': np.dtype,
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,
    'builtins.set': set,
    # bytes, which pickle protocols up to 2 write as text; no other encoding is used
    '_codecs.encode': lambda text, encoding: text.encode('latin1'),
    # a tensor's memory, which torch writes as a file of its own inside a pickle
    'torch.storage._load_from_bytes': lambda data: loadCheckpoint(io.BytesIO(data)),
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
}
for _name in dir(torch):  # torch 1.10 names them
    if _name.endswith('Storage') and not _name.startswith('_'):
        ALLOWED[f'torch.{_name}'] = getattr(torch, _name)


class RestrictedUnpickler(pickle.Unpickler):
    """Builds only what `ALLOWED` lists; anything else raises `pickle.UnpicklingError`."""

    def find_class(self, module, name):
        asked = f'{module}.{name}'.replace('numpy._core', 'numpy.core')
        if asked not in ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {asked}, which is no array, tensor or plain '
                                         'value; nothing of it was run')
        return ALLOWED[asked]


def loadPickle(path):
    """The value in the pickle file `path`.

    Raises:
        OSError: the file cannot be opened, or is a pipe or a device.
        pickle.UnpicklingError: the file asks for anything but arrays, tensors and plain values.
        Exception: whatever pickle raises on a broken file.
    """
    with openRegular(path) as f:
        return RestrictedUnpickler(f).load()


def loadCheckpoint(file):
    """The checkpoint in a file or at its path, its tensors on the CPU; errors as `loadPickle`'s."""
    if isinstance(file, str):
        with openRegular(file) as f:
            return loadCheckpoint(f)
    options = {}
    if 'weights_only' in inspect.signature(torch.load).parameters:
        options = {'weights_only': False}  # torch's own list lacks numpy's numbers
        with contextlib.suppress(pickle.UnpicklingError):
            return torch.load(file, map_location='cpu', weights_only=True)
        file.seek(0)
    restricted = types.SimpleNamespace(
        __name__='restricted', Unpickler=RestrictedUnpickler,
        load=lambda file, **options: RestrictedUnpickler(file, **options).load())
    return torch.load(file, map_location='cpu', pickle_module=restricted, **options)
