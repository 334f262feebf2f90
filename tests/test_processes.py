"""The processes beside the main one: they end with it, whatever it is doing, and their errors end it in a sentence."""
import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from leftovers import marked_environment, needs_proc, processes_with, seconds_until_gone

from utils.files.project import PROJECT
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
    path = folder / 'program.py'
    path.write_text(textwrap.dedent(BATCHES) + textwrap.dedent(code) + textwrap.dedent(f'''
        if __name__ == '__main__':
            multiprocessing.set_start_method({method!r})
            {'runScript(main)' if by_script else 'main()'}
        '''), encoding='utf-8')
    environment = marked_environment(PYTHONPATH=PROJECT, **variables)
    process = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                               env=environment, start_new_session=True)
    try:
        yield process, environment
    finally:
        for pid in processes_with(environment):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
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
@pytest.mark.parametrize('name, method', [('SIGTERM', 'fork'), *(('SIGKILL', method) for method in METHODS)])
def test_a_killed_program_leaves_no_process(name, method, tmp_path):
    with program(tmp_path, WITH_FULL_PIPES, method, by_script=False) as (process, environment):
        assert process.stdout.readline() == 'full\n'
        assert len(processes_with(environment)) > 4
        process.send_signal(getattr(signal, name))
        process.wait(timeout=5)
        seconds_until_gone(environment, 5)


READING_FOR_EVER = '''
    def main():
        for batch in batches():
            print('reading', flush=True)
            time.sleep(.1)
'''


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_a_signal_to_the_whole_group_ends_in_one_sentence(name, method, tmp_path):
    """As a terminal, a batch system or `timeout` sends it; a person may press Ctrl-C twice."""
    with program(tmp_path, READING_FOR_EVER, method) as (process, environment):
        process.stdout.readline()
        for _ in range(2):
            os.killpg(process.pid, getattr(signal, name))
        process.stdout.read()
        assert process.stderr.read().split() == ['Stopped.', *GOES_ON.split()] and process.wait() == 1
        seconds_until_gone(environment, 5)


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_a_signal_while_loaders_start_ends_in_one_sentence(method, tmp_path):
    with program(tmp_path, "    print('starting', flush=True)" + READING_FOR_EVER, method) as (process, environment):
        for _ in range(3):  # once in each loader
            assert process.stdout.readline() == 'starting\n'
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read().split() == ['Stopped.', *GOES_ON.split()] and process.wait() == 1


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


@pytest.mark.skipif(os.name != 'posix', reason='the limit is POSIX')
def test_a_batch_that_cannot_be_handed_over_ends_the_run_in_a_sentence(tmp_path):
    """A tensor that torch refuses to send; one that does not fit into shared memory."""
    for make, reason in (('lambda images: torch.ones(2, requires_grad=True) * 2', 'requires_grad'),
                         ('lambda images: torch.ones(100000)', 'File too large')):
        with program(tmp_path, f'''
                import resource

                def main():
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
                    next(iter(FileLoader(Images(), num_workers=1, collate_fn={make})))
                ''') as (process, environment):
            _, errors = process.communicate(timeout=20)
            assert errors.strip().startswith('A process that reads files cannot hand over a batch') and reason in errors
            assert 'numbOfCPUThreadsUsed' in errors and 'Traceback' not in errors and process.returncode == 1


def test_sockets_have_short_paths_where_the_temporary_folder_has_a_long_one(tmp_path):
    folder = tmp_path / ('long' * 30)
    folder.mkdir()
    with program(tmp_path, '''
            import tempfile
            from utils.processes.loaderProcesses import shortenSocketPaths

            def main():
                shortenSocketPaths()
                next(batches())
                sockets = multiprocessing.util.get_temp_dir()
                print(sockets, os.path.isdir(sockets), tempfile.gettempdir())
            ''', TMPDIR=str(folder)) as (process, environment):
        out, errors = process.communicate(timeout=20)
        sockets, there, temporary = out.split()
        assert len(sockets) < 30 and there == 'True' and temporary == str(folder) and errors == ''
        assert not os.path.exists(sockets) and os.listdir(str(folder)) == []
