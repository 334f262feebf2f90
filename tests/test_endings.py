"""What a log shows, and how a script ends: in a sentence, or in a stack trace."""
import errno
import os
import signal
import sys
import time

import pytest
import torch
from leftovers import posix_only, python

from utils.files.ownFiles import PROJECT
from utils.processes import progress
from utils.scripts.endings import KEPT, runScript

STOPPED = '''
import os, signal, time
from utils.scripts.endings import runScript

def main():
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in signals:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    time.sleep(100)

runScript(main)
'''


@posix_only
def test_signals_end_a_script_in_one_sentence():
    """A person's, a batch system's and a closed terminal's; all of them at once."""
    done = python('-c', STOPPED)
    assert done.stderr.strip() == f'Stopped. {KEPT}' and done.returncode == 1


@posix_only
@pytest.mark.parametrize('fault', ['misses', 'hangs'])
def test_a_script_that_does_not_stop_is_ended(fault):
    code = f'''
import concurrent.futures, contextlib, os, signal, time
from utils.scripts import endings

def misses():
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)

def read():
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(time.sleep, 20)

def hangs():
    batches = read()
    next(batches)
    os.kill(os.getpid(), signal.SIGTERM)

endings.SECONDS_TO_END = 1
endings.runScript({fault})
'''
    assert python('-c', code).returncode == -signal.SIGALRM
    if fault == 'misses':
        code = code.replace('time.sleep(20)', '') + 'time.sleep(1.5)\nmisses()\ntime.sleep(1.5)'
        assert python('-c', code).returncode == 0  # after its end nothing is ended


@posix_only
def test_a_script_goes_on_where_nohup_ignores_the_hangup():
    code = ('import os, signal; from utils.scripts.endings import runScript\n'
            'signal.signal(signal.SIGHUP, signal.SIG_IGN)\n'
            'runScript(lambda: os.kill(os.getpid(), signal.SIGHUP))')
    assert python('-c', code).returncode == 0


def test_a_terminal_without_the_letters_of_a_name():
    code = """from utils.scripts.endings import runScript; runScript(lambda: print('ø.jpg'))"""
    done = python('-c', code, env={**os.environ, 'PYTHONIOENCODING': 'ascii'})
    assert done.stdout.strip() == r'\xf8.jpg' and done.returncode == 0


@pytest.mark.parametrize('error, advice', [
    (OSError(errno.ENOSPC, 'No space left on device', 'x'), 'Make room'),
    (OSError(errno.EACCES, 'Permission denied', 'x'), 'copy the project'),
    (RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB'), 'batch_size'),
    (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED'), 'CUDA_VISIBLE_DEVICES'),
    (RuntimeError('cuDNN error: CUDNN_STATUS_NOT_INITIALIZED'), 'CUDA_VISIBLE_DEVICES'),
    (RuntimeError('CUDA error: all devices are busy or unavailable'), 'The GPU is full'),
    (RuntimeError('CUDA error: no kernel image is available'), 'no code for this GPU')])
def test_what_the_system_refuses_ends_in_a_sentence(error, advice):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        runScript(main)
    assert advice in str(caught.value) and str(caught.value).endswith(f'({error})')


@pytest.mark.parametrize('fail', [lambda: torch.ones(2, 3) @ torch.ones(2, 3),
                                  lambda: open('no such file'), lambda: int('x')])
def test_an_error_of_the_code_keeps_its_stack_trace(fail):
    with pytest.raises((RuntimeError, FileNotFoundError, ValueError)):
        runScript(fail)


def test_a_log_gets_readable_lines(model_param, monkeypatch, capsys):
    """Each with where the pass is, how long it takes and the loss; nothing of a quick pass."""
    monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', .05)
    assert list(progress.progressBar([1, 2, 3], 'quick', model_param)) == [1, 2, 3]
    batches = progress.progressBar(list('abcd'), 'epoch 1 train', model_param)
    for batch in batches:
        batches.set_postfix_str(f'loss {batch}', refresh=False)
        time.sleep(.06)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('epoch 1 train:  25%') and lines[0].endswith(', loss a]')
    assert ' 1/4 [' in lines[0] and 2 <= len(lines) <= 4


@pytest.mark.parametrize('where', ['terminal', 'notebook'])
def test_a_terminal_and_a_notebook_get_a_bar(where, model_param, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: where == 'terminal')
    parameters = {**model_param, 'inNotebook': where == 'notebook'}
    assert list(progress.progressBar([1], 'epoch 1 train', parameters)) == [1]
    assert capsys.readouterr().err.startswith('\repoch 1 train:   0%')


def test_other_processes_show_nothing(model_param, monkeypatch, capsys):
    monkeypatch.setattr(progress, 'isMain', lambda: False)
    monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', 0)
    assert list(progress.progressBar([1], 'epoch 1 train', model_param)) == [1]
    assert capsys.readouterr().err == ''


def test_a_script_refuses_parameters():
    done = python('../utils/captionPhotos.py', 'photos', cwd=os.path.join(PROJECT, 'tests'))
    assert 'takes no arguments, but was given photos' in done.stderr and done.returncode == 1
    assert 'Traceback' not in done.stderr
