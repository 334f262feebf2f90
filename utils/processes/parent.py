"""Processes that end when the one that has started them does, in whatever way that ends."""
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection

PR_SET_PDEATHSIG = 1  # of Linux's prctl
SECONDS_BETWEEN_LOOKS = 1

_prctl = ctypes.CDLL(None).prctl if sys.platform == 'linux' else None


def dieWithStarter():
    """Linux kills this process, whatever it is doing, when the thread that has started it ends; it may become another
    program. Elsewhere nothing."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def dieWithParent():
    """A process of multiprocessing ends when its parent does, by Linux or by a thread of its own.

    The thread is for other systems, for a parent that was gone before, and for 'forkserver', where the starter is not the
    parent. It looks at two signs: after a fork the pipe is held open by younger siblings, and a starter's number does not
    tell of the parent where it is another process, nor on Windows.
    """
    starter, parent = os.getppid(), multiprocessing.parent_process()
    dieWithStarter()

    def watch():
        while not connection.wait([parent.sentinel], SECONDS_BETWEEN_LOOKS) and os.getppid() == starter:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
