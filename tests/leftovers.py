"""Programs that a test starts, and which of their processes are still there, in Linux's /proc."""
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from utils.files.ownFiles import PROJECT
from utils.scripts.endings import STOPPING

MARK = 'CAPTIONING_STARTED_BY'  # an environment variable, which all descendants inherit

needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'),
                                reason='processes are looked up in /proc')
posix_only = pytest.mark.skipif(os.name != 'posix', reason='it needs signals, pipes, sh or sleep')


def python(*arguments, **options):
    """How a Python that is started in the project's folder ends, and what it says."""
    return subprocess.run([sys.executable, *arguments], **{
        'cwd': PROJECT, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE,
        'encoding': 'utf-8', 'timeout': 60, **options})


def marked_environment(**variables):
    """An environment for a program whose processes are to be found again."""
    return {**os.environ, MARK: uuid.uuid4().hex, **variables}


def processes_with(environment):
    """The numbers of the processes that were started with this environment, directly or not."""
    mark = f'{MARK}={environment[MARK]}'.encode()
    found = []
    for number in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            with open(f'/proc/{number}/environ', 'rb') as f:
                if mark in f.read().split(b'\0'):
                    found.append(int(number))
    return found


def seconds_until_gone(environment, longest):
    """After how many seconds the last of them has ended; AssertionError after `longest`."""
    begin = time.monotonic()
    while processes_with(environment):
        assert time.monotonic() - begin < longest, f'{processes_with(environment)} are left'
        time.sleep(.02)
    return time.monotonic() - begin


def kill_all(environment):
    """Kills what is left of them."""
    for number in processes_with(environment):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def hear_signals():
    """Makes programs that are started from now on hear Ctrl-C and hangups.

    Where nohup or a shell's & makes this process ignore these, they would ignore them too. A
    handler, which this process gets instead, is not inherited.
    """
    for number in STOPPING:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
