"""How a script ends: in a sentence wherever the user can fix what is wrong."""
import errno
import math
import os
import signal
import sys
import time
import traceback

from utils.files.errors import UserError, isOfGpu
from utils.processes.distributed import isFirstToEnd, joined, worldSize
from utils.processes.java import JavaError

# in what gloo and nccl say where another process of the training has ended
LOST_PROCESS = ('closed by peer', 'reset by peer', 'broken pipe', 'pair closure',
                'ncclremoteerror', 'communicator was aborted')
FULL_GPU = 'out of memory', 'alloc_failed', 'not_initialized', 'busy or unavailable'
STOPPING = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP')
            if hasattr(signal, name)]
SECONDS_TO_END = 60  # after a signal to stop
KEPT = 'What is finished is kept; start the same command again to go on.'

_running = False      # whether a script is
_stopped = -math.inf  # when the last signal to stop came
_alarm = getattr(signal, 'alarm', lambda seconds: None)  # Windows has none


def runScript(main):
    """Runs a script's `main`; what the user can fix ends it in a sentence, without a stack trace.

    So do Ctrl-C, the server's SIGTERM, SIGHUP where nohup does not ignore it, and arguments.
    """
    global _running
    _running = True
    if hasattr(sys.stdout, 'reconfigure'):
        # names that a terminal has no letters for; a log gets each line at once
        sys.stdout.reconfigure(errors='backslashreplace', line_buffering=True)
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    try:
        with joined():
            # arguments of a notebook or of pytest are not for it
            started, script = map(os.path.abspath, (sys.argv[0], main.__code__.co_filename))
            if sys.argv[1:] and started == script:
                raise UserError(f"This script takes no arguments, but was given {sys.argv[1]}. "
                                'Its top says what it does and what can be set.')
            main()
    except (UserError, JavaError) as error:
        _end(error)
    except KeyboardInterrupt as error:
        traceback.clear_frames(error.__traceback__)  # ends the threads that read
        _end(f'Stopped. {KEPT}')
    except (OSError, RuntimeError, EOFError) as error:
        advice = _advice(error)
        if not advice:
            raise
        _end(f'{advice} {KEPT}\n({str(error) or type(error).__name__})')
    finally:
        _running = False
        _alarm(0)


def _stop(*_):
    """Ends the script as Ctrl-C does; torchrun and hasty people send several signals at once."""
    global _stopped
    if time.monotonic() - _stopped > 1:
        _stopped = time.monotonic()
        if _running:
            # the system ends a script that does not: Python drops exceptions within os.fork, and a
            # lock may stay held
            _alarm(SECONDS_TO_END)
        raise KeyboardInterrupt


def _end(sentence):
    """Ends this process; of several processes that end for one reason only the first says it."""
    sys.exit(f'\n{sentence}' if isFirstToEnd() else 1)


def _advice(error):
    """What to do about an error of the system or a GPU; '' where the user can do nothing."""
    text = str(error).lower()
    if isOfGpu(error):
        if 'no kernel image' in text:
            return ('This PyTorch has no code for this GPU. Choose another by CUDA_VISIBLE_DEVICES '
                    "or set modelParam['cuda']['use_cuda'] to False.")
        if any(sign in text for sign in FULL_GPU):
            return ('The GPU is full. Choose a free one (nvidia-smi shows them) by '
                    "CUDA_VISIBLE_DEVICES, or set modelParam['batch_size'] lower.")
    if worldSize() > 1 and any(sign in text for sign in LOST_PROCESS):
        return 'Another process of this training, or the connection to it, has ended.'
    number = getattr(error, 'errno', None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return 'The disk is full, or your quota is reached. Make room.'
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ('You may not read or write there. The data folder must be readable; the scripts '
                'write into their own folder: copy the project to a place where you may write.')
    return ''
