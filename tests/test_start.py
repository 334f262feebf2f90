"""How the scripts end where a machine or another process fails them."""
import contextlib
import errno
import os

import pytest
import torch

from utils.files.project import runFolder
from utils.scripts import start
from utils.scripts.endings import runScript

GIB = 2 ** 30


def ending(error):
    """What a script says that fails with this error."""
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        runScript(main)
    return str(caught.value)


@pytest.mark.parametrize('error', [
    RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB'), RuntimeError('CUDA error: out of memory'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')])
def test_a_full_gpu_says_what_is_free_and_what_to_change(error, monkeypatch):
    for name, value in (('current_device', 1), ('memory_reserved', GIB), ('max_memory_reserved', 2 * GIB),
                        ('mem_get_info', (3 * GIB, 80 * GIB))):
        monkeypatch.setattr(torch.cuda, name, lambda *device, value=value: value, raising=False)
    said = ending(error)
    assert 'GPU 1 is full: of 81,920 MiB 3,072 are free, this process holds 1,024 and needed more than 2,048' in said
    assert 'CUDA_VISIBLE_DEVICES' in said and "modelParam['batch_size']" in said and 'started again' in said


def fill_a_disk():
    with open('/dev/full', 'w') as f:
        f.write('x')


def open_too_many_files():
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(open(os.devnull))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize('fail, advice', [(fill_a_disk, 'Make room'), (open_too_many_files, 'ulimit -n')])
def test_what_the_system_refuses_ends_in_a_sentence(fail, advice):
    if fail is fill_a_disk and not os.path.exists('/dev/full') or os.name != 'posix':
        pytest.skip('made by POSIX and by Linux')
    with pytest.raises(OSError) as real:
        fail()
    said = ending(real.value)
    assert advice in said and said.endswith(f'({real.value})')


@pytest.mark.parametrize('error, advice', [  # which cannot be made at will
    (OSError(errno.EDQUOT, 'Disk quota exceeded'), 'quota'),
    (PermissionError(errno.EACCES, 'Permission denied', '/somewhere/x'), 'copy the project'),
    (OSError(errno.EROFS, 'Read-only file system', '/somewhere/x'), 'copy the project')])
def test_other_refusals_end_in_a_sentence(error, advice):
    said = ending(error)
    assert advice in said and said.endswith(f'({error})')


@pytest.mark.parametrize('fail', [lambda: torch.ones(2, 3) @ torch.ones(2, 3), lambda: open('no such file'), lambda: int('x')])
def test_an_error_of_the_code_keeps_its_stack_trace(fail):
    with pytest.raises((RuntimeError, FileNotFoundError, ValueError)):
        runScript(fail)


def test_an_early_end_says_what_is_kept(model_param, course_folder, monkeypatch):
    """In a training before and after its first epoch, in a validation."""
    course_folder()
    monkeypatch.setattr(start, 'findJava', lambda: None)
    parameters = start.prepare(model_param)
    assert 'begins with the first' in ending(KeyboardInterrupt())
    open(os.path.join(runFolder(parameters), 'last_epoch1.pt'), 'w').close()
    assert 'goes on from there' in ending(KeyboardInterrupt())
    monkeypatch.setattr(start, '_parameters', {**parameters, 'inference': True})
    assert 'keeps nothing' in ending(KeyboardInterrupt())


@pytest.mark.skipif(os.name != 'posix', reason='the limit is POSIX')
def test_the_limit_of_open_files_is_raised_as_far_as_allowed():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        start.allowOpenFiles()
        expected = start.OPEN_FILES if hard == resource.RLIM_INFINITY else min(start.OPEN_FILES, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (expected, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
