"""The processes that read files beside the main one: how many there may be, how they start, fail and end."""
import contextlib
import gc
import multiprocessing
import multiprocessing.queues
import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
from multiprocessing import resource_tracker

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from utils.files.errors import UserError
from utils.processes.parent import dieWithParent

if 'forkserver' in multiprocessing.get_all_start_methods():
    multiprocessing.set_forkserver_preload(['__main__', 'torch'])  # which else every single process imports

LONGEST_SOCKET_PATH = 100  # bytes; the least that a system allows is 103
SHORT_FOLDERS = '/tmp', '/var/tmp', '/dev/shm'


def sharedMemory():
    """The bytes that loader processes may fill with batches: what is free in /dev/shm, where there is one."""
    return shutil.disk_usage('/dev/shm').free if os.path.isdir('/dev/shm') else sys.maxsize


def provideSocketFolder():
    """Batches are handed over by sockets, whose paths must be short: where the temporary folder's is long, they lie in another
    one. This process and all that it starts remember it, and the end of this one removes it. Other temporary files stay."""
    given = tempfile.tempdir
    longest = os.path.join(tempfile.gettempdir(), 'pymp-12345678', 'listener-12345678')
    if os.name == 'posix' and len(os.fsencode(longest)) > LONGEST_SOCKET_PATH:
        tempfile.tempdir = next((folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK)), given)
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = given


class FileLoader(DataLoader):
    """A DataLoader whose processes are those of this file; arguments as DataLoader's.

    Unless somebody has chosen another start method they are forked where that is safe, in hundredths of a second: any other
    method imports torch again in each of them.
    """

    def __init__(self, dataset, num_workers=0, **options):
        forked = sys.platform == 'linux' and multiprocessing.get_start_method(allow_none=True) is None
        super().__init__(dataset, num_workers=num_workers, worker_init_fn=_startLoaderProcess,
                         multiprocessing_context='fork' if forked and num_workers else None, **options)

    def _get_iterator(self):
        if self.num_workers:
            provideSocketFolder()
            if self.multiprocessing_context is None and os.name == 'posix':
                resource_tracker.ensure_running()  # whose start would let the signals go
        with _signalsHeld():
            return super()._get_iterator()


SIGNALS = {getattr(signal, name): action for name, action in (
    ('SIGINT', signal.SIG_IGN), ('SIGHUP', signal.SIG_IGN), ('SIGTERM', lambda *_: os._exit(0))) if hasattr(signal, name)}


@contextlib.contextmanager
def _signalsHeld():
    """Within, signals wait: so they do in the processes that are started here, until those are ready for them."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _startLoaderProcess(worker):
    """A loader process ends when its parent does or ends it, not by the signals that a terminal sends to all of a run, and
    without a word where a batch system ends all of them, which the main process tells; what it cannot hand over it says. When
    it ends it waits for nothing. Its garbage collector leaves alone what it shares with the parent, which would become copies
    of its own."""
    dieWithParent()
    multiprocessing.util.Finalize(None, os._exit, (0,), exitpriority=100)
    gc.freeze()
    for number, action in SIGNALS.items():
        signal.signal(number, action)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    multiprocessing.queues.Queue._on_queue_feeder_error = _handOverError
    sys.excepthook = _passOverLostConnection


def _passOverLostConnection(kind, error, trace, otherwise=sys.excepthook):
    """The main process that breaks a connection is ending, and says itself why."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        otherwise(kind, error, trace)


def _handOverError(results, error, result):
    """In place of a batch that cannot be sent the main process gets the reason, which else is printed while it waits for ever.

    Args:
        results: the queue to the main process.
        error: what was raised.
        result: the pair of the batch's number and the batch, or bytes.
    """
    if not isinstance(result, tuple) or isinstance(result[1], ExceptionWrapper):
        os._exit(1)  # which the main process notices
    try:
        raise UserError(f'A process that reads files cannot hand over a batch: {type(error).__name__}: {error}. '
                        "Set modelParam['numbOfCPUThreadsUsed'] to 0, which reads without further processes.")
    except UserError:
        results.put((result[0], ExceptionWrapper()))


def passOverLoaderProcesses():
    """From now on, as this process is about to end, the end of a loader process is no error: torch raises one else, at
    whatever moment, and waits for locks that the process has held."""
    torch.utils.data._utils.python_exit_status = True
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, lambda *_: None)  # Python complains of one under way where none is set


def endLoaderProcesses():
    """Ends those that are left when this process is about to end, whatever they are doing: no exit has to wait for them."""
    passOverLoaderProcesses()
    for process in multiprocessing.active_children():
        process.kill()
