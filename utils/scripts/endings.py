"""How a script ends: in a sentence wherever the person who started it can mend what is wrong."""
import _thread
import errno
import math
import signal
import sys
import threading
import time

import torch

from utils.files.errors import UserError
from utils.processes.distributed import isFirstToEnd, joined, worldSize
from utils.processes.java import JavaError
from utils.processes.loaderProcesses import endLoaderProcesses, passOverLoaderProcesses
from utils.scripts.start import OPEN_FILES, whatIsKept

LOST_PROCESS = 'closed by peer', 'reset by peer', 'broken pipe', 'pair closure', 'nccl'  # in what gloo and nccl say then
STOPPING = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]

_stopped = -math.inf  # when the last signal to stop came


def runScript(main):
    """Runs a script's `main`; what the user can mend ends it as a sentence instead of a stack trace, and so do Ctrl-C, the
    server's SIGTERM, and SIGHUP where nohup does not ignore it. Loader processes that it leaves are ended."""
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    sys.unraisablehook = _raiseAgain
    try:
        with joined():
            main()
    except (UserError, JavaError) as error:
        _end(error)
    except KeyboardInterrupt:
        passOverLoaderProcesses()
        for number in STOPPING:
            signal.signal(number, lambda *_: None)  # one is enough
        _end(f'Stopped. {whatIsKept()}')
    except (OSError, RuntimeError, EOFError) as error:
        passOverLoaderProcesses()
        advice = _advice(error)
        if not advice:
            raise
        _end(f'{advice} {whatIsKept()}\n({str(error) or type(error).__name__})')
    finally:
        endLoaderProcesses()


def _stop(*_):
    """Ends the script as Ctrl-C does; more signals of the same second, as from torchrun or a hasty person, say nothing new."""
    global _stopped
    if time.monotonic() - _stopped > 1:
        _stopped = time.monotonic()
        endLoaderProcesses()  # before anything waits for them
        raise KeyboardInterrupt


def _raiseAgain(unraisable):
    """A Ctrl-C at a moment when Python can raise nothing, as in a destructor, is raised a little later instead of lost."""
    global _stopped
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _stopped = -math.inf
        threading.Timer(.1, _interruptMain).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interruptMain():
    if hasattr(signal, 'pthread_kill'):  # which also ends its waiting
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _end(sentence):
    """Ends this process by a sentence, or without one where another process of this training has said why all end."""
    sys.exit(f'\n{sentence}' if isFirstToEnd() else 1)


def _advice(error):
    """What to do about an error that the system, a GPU or a loader process gave; '' where it is none that a user can mend."""
    text = str(error).lower()
    if 'cuda' in text and ('out of memory' in text or 'alloc_failed' in text):
        return _memoryOfGpu()
    if 'killed by signal: terminated' in text:  # torchrun and batch systems end a process together with those it has started
        return 'Stopped.'
    lost = 'dataloader worker' in text and ('exited unexpectedly' in text or 'killed by signal' in text)
    within_a_batch = worldSize() == 1 and isinstance(error, (EOFError, ConnectionResetError, ConnectionRefusedError))
    if lost or within_a_batch:
        return ("A process that reads files was ended from outside, most likely for lack of memory. Set "
                "modelParam['numbOfCPUThreadsUsed'] lower; 0 reads without further processes.")
    if worldSize() > 1 and any(sign in text for sign in LOST_PROCESS):
        return 'Another process of this training, or the connection to it, has ended.'
    number = getattr(error, 'errno', None)
    if number in (errno.EMFILE, errno.ENFILE) or 'too many open files' in text or 'ancdata' in text:
        return (f"Too many files are open. Allow {OPEN_FILES} (ulimit -n {OPEN_FILES}) or set "
                "modelParam['numbOfCPUThreadsUsed'] lower; 0 needs fewest.")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return 'The disk is full, or your quota is reached. Make room.'
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return 'The scripts write into their own folder: copy the project to a place where you may write.'
    return ''


def _memoryOfGpu():
    """What to do about a full GPU, with its free memory and this process's share."""
    device = torch.cuda.current_device()
    held, most = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    return (f'GPU {device} is full: of {total / 2 ** 20:,.0f} MiB {free / 2 ** 20:,.0f} are free, this process holds '
            f'{held / 2 ** 20:,.0f} and needed more than {most / 2 ** 20:,.0f}. Choose a free one (nvidia-smi shows them) by '
            "CUDA_VISIBLE_DEVICES, or set modelParam['batch_size'] lower.")
