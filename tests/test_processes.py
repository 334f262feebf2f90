"""The processes beside the main one: they end with it, whatever it is doing, and their errors end it in a sentence."""
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import pytest
from leftovers import kill_all, marked_environment, needs_proc, processes_with, seconds_until_gone, side_by_side

from utils.files.project import PROJECT
from utils.processes import progress
from utils.scripts.start import GOES_ON

METHODS = ['fork', 'spawn', 'forkserver']
BATCHES = '''
    import multiprocessing, os, sys, time
    import torch
    from utils.metrics import METEOR
    from utils.processes.loaderProcesses import FileLoader
    from utils.scripts.endings import runScript

    CAPTION = 'a man riding a wave on top of a surfboard'

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 100000

        def __getitem__(self, index):  # as long as COCO's: a batch of 128 does not fit into a pipe
            return torch.zeros(2048), [CAPTION + str(number) for number in range(5)], [CAPTION.split()] * 5, [list(range(10))] * 5

    def collate(images):
        return torch.stack([image[0] for image in images]), images

    def batches(make=Images, workers=2):
        return iter(FileLoader(make(), batch_size=128, num_workers=workers, collate_fn=collate))
'''


@contextlib.contextmanager
def program(folder, code, method='fork', by_script=True, **variables):
    """A Python program in a session of its own, as text and as a process; nothing of it is left afterwards."""
    path = folder / f'program_{uuid.uuid4().hex}.py'
    path.write_text(textwrap.dedent(BATCHES) + textwrap.dedent(code) + textwrap.dedent(f'''
        if __name__ == '__main__':
            multiprocessing.set_start_method({method!r})
            {'runScript(main)' if by_script else 'main()'}
        '''), encoding='utf-8')
    # without the warnings of Python's own tracker of semaphores, where 'forkserver' is ended while it starts
    environment = marked_environment(PYTHONPATH=PROJECT, PYTHONWARNINGS='ignore', **variables)
    process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                               env=environment, start_new_session=True)
    try:
        yield process, environment
    finally:
        kill_all(environment)
        process.communicate()


WITH_FULL_PIPES = '''
    def main():
        reading = batches()
        next(reading)
        meteor = METEOR()  # which does not read its input before it has read its tables
        reading_more = batches()
        next(reading_more)
        time.sleep(1)
        print('full', flush=True)
        time.sleep(1000)
'''


@needs_proc
def test_a_killed_program_leaves_no_process(tmp_path):
    def check(name, method):
        with program(tmp_path, WITH_FULL_PIPES, method, by_script=False) as (process, environment):
            assert process.stdout.readline() == 'full\n'
            assert len(processes_with(environment)) > 4
            process.send_signal(getattr(signal, name))
            process.wait(timeout=5)
            seconds_until_gone(environment, 5)

    side_by_side(check, [('SIGTERM', 'fork'), *(('SIGKILL', method) for method in METHODS)])


READING_FOR_EVER = '''
    def main():
        for batch in batches():
            print('reading', flush=True)
            time.sleep(.1)
'''


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_a_signal_to_the_whole_group_ends_in_one_sentence(tmp_path):
    """As a terminal, a batch system or `timeout` sends it; a person may press Ctrl-C twice."""
    def check(method, name):
        with program(tmp_path, READING_FOR_EVER, method) as (process, environment):
            process.stdout.readline()
            for _ in range(2):
                os.killpg(process.pid, getattr(signal, name))
            process.stdout.read()
            assert process.stderr.read().strip() == f'Stopped. {GOES_ON}' and process.wait() == 1
            seconds_until_gone(environment, 5)

    side_by_side(check, itertools.product(METHODS, ['SIGTERM', 'SIGINT']))


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_a_signal_while_loaders_start_ends_in_one_sentence(tmp_path):
    def check(method):
        with program(tmp_path, "    os.write(1, b'starting\\n')" + READING_FOR_EVER, method) as (process, environment):
            for _ in range(2):  # in the main process, in one of the loaders
                assert process.stdout.readline() == 'starting\n'
            os.killpg(process.pid, signal.SIGINT)
            process.stdout.read()
            assert process.stderr.read().strip() == f'Stopped. {GOES_ON}' and process.wait() == 1

    side_by_side(check, [('spawn',), ('forkserver',)])


def test_an_error_is_the_only_stack_trace(tmp_path):
    with program(tmp_path, '''
            def main():
                for batch in batches():
                    time.sleep(1)
                    raise ValueError('the only one')
            ''') as (process, environment):
        _, errors = process.communicate(timeout=60)
        assert errors.count('Traceback') == 1 and errors.endswith('ValueError: the only one\n') and process.returncode == 1


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_an_interrupt_that_python_cannot_raise_is_not_lost(tmp_path):
    with program(tmp_path, '''
            import signal

            class Destructor:
                def __del__(self):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(.01)

            def main():
                Destructor()
                print('goes on', flush=True)
                time.sleep(100)
            ''') as (process, environment):
        out, errors = process.communicate(timeout=20)
        assert out == 'goes on\n' and errors.split()[0] == 'Stopped.' and process.returncode == 1


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_signals_that_arrive_together_end_in_one_sentence(tmp_path):
    """A person's, a batch system's, and that of a loader's end."""
    with program(tmp_path, '''
            import signal

            def main():
                next(batches())  # torch listens for ends of loaders from now on
                signals = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
                signal.pthread_sigmask(signal.SIG_BLOCK, signals)
                for number in signals:
                    os.kill(os.getpid(), number)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            ''') as (process, environment):
        _, errors = process.communicate(timeout=60)
        assert errors.strip() == f'Stopped. {GOES_ON}' and process.returncode == 1


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_an_interrupt_between_imports_leaves_no_stack_trace():
    code = 'import utils, os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)'
    done = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.stderr.split() == ['Stopped.'] and done.returncode == -signal.SIGINT


@pytest.mark.skipif(os.name != 'posix', reason='the limit is POSIX')
def test_a_batch_that_cannot_be_handed_over_ends_the_run_in_a_sentence(tmp_path):
    """A tensor that torch refuses to send; one that does not fit into shared memory."""
    def check(make, reason):
        with program(tmp_path, f'''
                import resource

                def main():
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
                    next(iter(FileLoader(Images(), num_workers=1, collate_fn={make})))
                ''') as (process, environment):
            _, errors = process.communicate(timeout=20)
            assert errors.strip().startswith('A process that reads files cannot hand over a batch') and reason in errors
            assert 'numbOfCPUThreadsUsed' in errors and 'Traceback' not in errors and process.returncode == 1

    side_by_side(check, [('lambda images: torch.ones(2, requires_grad=True) * 2', 'requires_grad'),
                         ('lambda images: torch.ones(100000)', 'to the right size')])


@pytest.mark.skipif(os.name != 'posix', reason='these signals and limits are POSIX')
def test_what_happens_to_loaders_ends_in_a_sentence(tmp_path):
    """Killed as the system does it for lack of memory or of shared memory; batches with more files than may be open."""
    def check(what, advice):
        with program(tmp_path, f'''
                import resource
                import signal

                def main():
                    reading = batches()
                    kept = [next(reading)]
                    {what}
                    for batch in reading:
                        kept.append(batch)
                ''') as (process, environment):
            _, errors = process.communicate(timeout=60)
            assert advice in errors and 'numbOfCPUThreadsUsed' in errors and 'goes on from there' in errors
            assert 'Traceback' not in errors.replace('(Traceback', '') and process.returncode == 1

    side_by_side(check, [('os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)', 'lack of memory'),
                         ('os.kill(multiprocessing.active_children()[0].pid, signal.SIGBUS)', 'lack of memory'),
                         ('resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))', 'ulimit -n')])


def test_sockets_have_short_paths_where_the_temporary_folder_has_a_long_one(tmp_path):
    folder = tmp_path / ('long' * 30)
    folder.mkdir()
    with program(tmp_path, '''
            import tempfile

            def main():
                next(batches())
                sockets = multiprocessing.util.get_temp_dir()
                print(sockets, os.path.isdir(sockets), tempfile.gettempdir())
            ''', TMPDIR=str(folder)) as (process, environment):
        out, errors = process.communicate(timeout=20)
        sockets, there, temporary = out.split()
        assert len(sockets) < 30 and there == 'True' and temporary == str(folder) and errors == ''
        assert not os.path.exists(sockets) and os.listdir(str(folder)) == []


def test_a_log_gets_a_line_a_minute(model_param, monkeypatch, capsys):
    """Two batches a minute, five in all: where it is, the loss handed over, how long it will take; nothing of a quick pass."""
    assert list(progress.progressBar([1, 2, 3], 'quick', model_param)) == [1, 2, 3]
    assert capsys.readouterr() == ('', '')
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    batches = progress.progressBar(list('abcde'), 'epoch 1 train', model_param)
    for batch in batches:
        batches.set_postfix_str(f'loss {batch}', refresh=False)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(', done')[0] for line in said] == [f'epoch 1 train: {number} of 5 batches, loss {batch}'
                                                          for number, batch in ((1, 'a'), (3, 'c'))]
    assert 'done in 4 min, at ' in said[0] and 'done in 1 min, at ' in said[1]


def test_a_terminal_gets_a_bar(model_param, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True, raising=False)
    bar = progress.progressBar([1], 'epoch 1 train', model_param)
    assert isinstance(bar, progress.tqdm) and list(bar) == [1]
    bar.set_postfix_str('loss 1.0', refresh=False)


def test_a_log_says_what_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(progress, 'LONG', .05)
    with progress.saidWhenLong('Quick'):
        pass
    with progress.saidWhenLong('Looking for Java'):
        time.sleep(.2)
    assert capsys.readouterr() == ('', 'Looking for Java …\n')


LOCKING = """
import os, sys, time, types
if sys.argv[2] == 'Windows':  # its function, made of the other system's
    import fcntl
    def locking(descriptor, mode, length):
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, os.lseek(descriptor, 0, os.SEEK_CUR))
    sys.modules.update(msvcrt=types.SimpleNamespace(LK_NBLCK=2, locking=locking), fcntl=None)
from utils.files.runLock import lockFolder
lockFolder(sys.argv[1])
if os.fork() == 0:
    time.sleep(100)
print('locked', flush=True)
sys.stdin.read()
"""


@needs_proc
@pytest.mark.parametrize('system', ['this', 'Windows'])
def test_a_lock_names_its_holder_and_goes_with_it(system, tmp_path):
    """Though a process that the holder has started lives on."""
    environment = marked_environment(PYTHONPATH=PROJECT)

    def start():
        return subprocess.Popen([sys.executable, '-c', LOCKING, str(tmp_path), system], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=environment)

    try:
        first = start()
        assert first.stdout.readline() == 'locked\n'
        second = start()
        assert f'by process {first.pid} on' in second.communicate()[1] and second.returncode == 1
        first.kill()
        first.wait()
        assert start().stdout.readline() == 'locked\n'
    finally:
        kill_all(environment)
