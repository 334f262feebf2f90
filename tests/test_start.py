"""How the scripts end where the machine fails them."""
import errno
import os

import pytest
import torch

from utils.scripts.endings import runScript

GIB = 2 ** 30


def ending(error):
    """What a script says that fails with this error."""
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        runScript(main)
    return str(caught.value)


@pytest.mark.parametrize('error', ['CUDA out of memory. Tried to allocate 2.00 GiB',
                                   'CUDA error: CUBLAS_STATUS_ALLOC_FAILED'])
def test_a_full_gpu_says_what_is_free_and_what_to_change(error, monkeypatch):
    for name, value in (('current_device', 1), ('memory_reserved', GIB),
                        ('max_memory_reserved', 2 * GIB), ('mem_get_info', (3 * GIB, 80 * GIB))):
        monkeypatch.setattr(torch.cuda, name, lambda *device, value=value: value, raising=False)
    said = ending(RuntimeError(error))
    assert ('GPU 1 is full: of 81,920 MiB 3,072 are free, this process holds 1,024 and needed more '
            'than 2,048') in said
    assert 'CUDA_VISIBLE_DEVICES' in said and "modelParam['batch_size']" in said


@pytest.mark.parametrize('number, advice', [
    (errno.ENOSPC, 'Make room'), (errno.EDQUOT, 'quota'), (errno.EACCES, 'copy the project')])
def test_what_the_system_refuses_ends_in_a_sentence(number, advice):
    error = OSError(number, os.strerror(number), '/somewhere/x')
    said = ending(error)
    assert advice in said and said.endswith(f'({error})')


@pytest.mark.parametrize('fail', [lambda: torch.ones(2, 3) @ torch.ones(2, 3),
                                  lambda: open('no such file'), lambda: int('x')])
def test_an_error_of_the_code_keeps_its_stack_trace(fail):
    with pytest.raises((RuntimeError, FileNotFoundError, ValueError)):
        runScript(fail)
