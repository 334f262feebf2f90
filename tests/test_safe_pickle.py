"""Only arrays, tensors and plain values are ever built from a file."""
import collections
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from utils.files.project import PROJECT
from utils.files.safePickle import loadCheckpoint, loadPickle


def roundtrip(tmp_path, value, protocol=4):
    path = os.path.join(str(tmp_path), 'file')
    with open(path, 'wb') as f:
        pickle.dump(value, f, protocol=protocol)
    return loadPickle(path)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('value', [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3).T, np.int64(3)],
                         ids=['array', 'integers', 'scalar'])
def test_numpy_values(tmp_path, value, protocol):
    back = roundtrip(tmp_path, value, protocol)
    assert type(back) is type(value) and back.dtype == value.dtype
    np.testing.assert_array_equal(back, value)


@pytest.mark.parametrize('ours, other', [(b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')])
def test_both_spellings_of_numpys_module(tmp_path, ours, other):
    data = pickle.dumps([np.arange(4.0), np.int64(7)], protocol=2)  # protocol 2: names without their length in front
    if ours not in data:
        ours, other = other, other
    path = os.path.join(str(tmp_path), 'file')
    with open(path, 'wb') as f:
        f.write(data.replace(ours, other))
    array, scalar = loadPickle(path)
    assert array.tolist() == [0, 1, 2, 3] and scalar == 7


def test_tensors_and_plain_values(tmp_path):
    value = {'t': torch.arange(5.0), 'l': [1, 'a', None, (2.5, True)], 'c': collections.Counter('aab'), 's': {1, 2}}
    back = roundtrip(tmp_path, value)
    assert torch.equal(back.pop('t'), value.pop('t')) and back == value


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_is_refused_named_and_not_run(tmp_path):
    target = os.path.join(str(tmp_path), 'made')
    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        roundtrip(tmp_path, {'cnn_features': Attack(target)})
    assert not os.path.exists(target)


def test_code_inside_a_tensor_is_refused(tmp_path):
    target = os.path.join(str(tmp_path), 'made')
    nested = os.path.join(str(tmp_path), 'nested')
    torch.save(Attack(target), nested, _use_new_zipfile_serialization=False)

    class Hidden:
        def __reduce__(self):
            with open(nested, 'rb') as f:
                return torch.storage._load_from_bytes, (f.read(),)

    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        roundtrip(tmp_path, Hidden())
    assert not os.path.exists(target)


def test_checkpoints(tmp_path):
    path, target = os.path.join(str(tmp_path), 'c.pt'), os.path.join(str(tmp_path), 'made')
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({'net': net.state_dict(), 'optimizer': optimizer.state_dict(), 'history': [{'loss': 1.5}]}, path)
    back = loadCheckpoint(path)
    assert torch.equal(back['net']['weight'], net.weight) and back['history'] == [{'loss': 1.5}]
    torch.save({'net': Attack(target)}, path)
    with pytest.raises(pickle.UnpicklingError):
        loadCheckpoint(path)
    assert not os.path.exists(target)


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='memory is limited on Linux')
def test_a_pickle_that_asks_for_much_memory_is_refused(tmp_path):
    path = os.path.join(str(tmp_path), 'file')
    with open(path, 'wb') as f:
        f.write(b'\x80\x02K\x01r\xff\xff\xff\x7f.')  # remember the 1 at the index 2³¹ - 1: a table of 32 GiB
    with pytest.raises(MemoryError):
        loadPickle(path)
    assert roundtrip(tmp_path, np.ones(3)).sum() == 3


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='memory is limited on Linux')
def test_a_limit_that_the_system_has_set_is_no_fault_of_a_pickle(tmp_path):
    path = os.path.join(str(tmp_path), 'file')
    with open(path, 'wb') as f:
        pickle.dump([1, 2], f)
    code = ('import mmap, resource, sys\n'
            'from utils.files.safePickle import loadPickle\n'
            'used = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE\n'
            'limits = (used + 10 ** 8,) * 2\n'
            'resource.setrlimit(resource.RLIMIT_AS, limits)\n'
            'assert loadPickle(sys.argv[1]) == [1, 2] and resource.getrlimit(resource.RLIMIT_AS) == limits')
    done = subprocess.run([sys.executable, '-c', code, path], cwd=PROJECT, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs a pipe')
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    pipe = os.path.join(str(tmp_path), 'pipe')
    os.mkfifo(pipe)
    for path in (pipe, '/dev/zero'):
        with pytest.raises(OSError, match='no regular file'):
            loadPickle(path)
