"""Only arrays, tensors and plain values are ever built from a file."""
import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch

from utils.files.safePickle import loadCheckpoint, loadPickle


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'file')


@pytest.fixture
def target(tmp_path):
    """The path of a folder that no file may make."""
    yield str(tmp_path / 'made')
    assert not (tmp_path / 'made').exists()


def loaded(path, data):
    with open(path, 'wb') as f:
        f.write(data)
    return loadPickle(path)


@pytest.mark.parametrize('protocol', range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_what_files_hold(path, protocol):
    value = {'array': np.arange(6, dtype=np.float32).reshape(2, 3), 'scalar': np.int64(3),
             'tensor': torch.arange(5.0), 'list': [1, 'a', None, (2.5, True), b'\xff'],
             'counter': collections.Counter('aab'), 'set': {1, 2}}
    back = loaded(path, pickle.dumps(value, protocol))
    array, tensor = back.pop('array'), back.pop('tensor')
    assert array.dtype == np.float32 and np.array_equal(array, value.pop('array'))
    assert torch.equal(tensor, value.pop('tensor'))
    assert back == value and type(back['scalar']) is np.int64


@pytest.mark.parametrize('name', [b'numpy._core', b'numpy.core'])
def test_numpy_1_and_2(path, name):
    data = pickle.dumps([np.arange(3.0), np.int64(7)], protocol=2)  # no lengths of names in it
    data = data.replace(b'numpy._core', b'numpy.core').replace(b'numpy.core', name)
    array, scalar = loaded(path, data)
    assert array.tolist() == [0, 1, 2] and scalar == 7


class Attack:
    """Makes the folder `target` when it is unpickled without restrictions."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


class Hidden(Attack):
    """Hides an attack in what torch writes inside a pickle."""

    def __reduce__(self):
        data = io.BytesIO()
        torch.save(Attack(self.target), data, _use_new_zipfile_serialization=False)
        return torch.storage._load_from_bytes, (data.getvalue(),)


@pytest.mark.parametrize('attack', [Attack, Hidden])
def test_code_is_refused_named_and_not_run(path, target, attack):
    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        loaded(path, pickle.dumps({'cnn_features': attack(target)}))


def test_checkpoints(path, target):
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for loss in (1.5, np.float64(1.5)):
        state = {'net': net.state_dict(), 'optimizer': optimizer.state_dict(), 'loss': loss}
        torch.save(state, path)
        back = loadCheckpoint(path)
        assert torch.equal(back['net']['weight'], net.weight) and back['loss'] == 1.5
    with open(path, 'w') as f:
        f.write('no checkpoint')
    with pytest.raises(pickle.UnpicklingError) as caught:
        loadCheckpoint(path)
    assert 'weights_only' not in str(caught.value)
    for attack in (Attack, Hidden):
        torch.save({'net': attack(target)}, path)
        with pytest.raises(pickle.UnpicklingError, match='mkdir'):
            loadCheckpoint(path)


@pytest.mark.parametrize('data', [b'\x80\x02K\x01p1000000000000\n.',
                                  b'\x80\x04\x8d' + (2 ** 42).to_bytes(8, 'little') + b'abc.'])
def test_a_pickle_that_asks_for_terabytes_is_refused(path, data):
    """A table of 10¹² values; a text of 4 TB."""
    with pytest.raises((MemoryError, pickle.UnpicklingError)):
        loaded(path, data)
