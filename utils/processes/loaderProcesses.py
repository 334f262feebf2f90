"""The processes that read files beside the main one: how many there may be, and how they start."""
import gc
import os
import shutil
import signal
import sys


def availableCores():
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def sharedMemory():
    """The bytes that loader processes may fill with batches: what is free in /dev/shm, where there is one."""
    return shutil.disk_usage('/dev/shm').free if os.path.isdir('/dev/shm') else sys.maxsize


def startLoaderProcess(worker):
    """A loader process ends when its parent does or ends it, not by the signals that a terminal sends to all of a run; and
    its garbage collector leaves alone what it shares with the parent, which would become copies of its own."""
    gc.freeze()
    for name, action in (('SIGINT', signal.SIG_IGN), ('SIGHUP', signal.SIG_IGN), ('SIGTERM', signal.SIG_DFL)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), action)
