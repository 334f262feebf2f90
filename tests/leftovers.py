"""Programs that tests start: two at a time, and which of their processes are still there, by Linux's /proc, whatever session or
parent they have by now."""
import concurrent.futures
import contextlib
import os
import signal
import time
import uuid

import pytest

MARK = 'CAPTIONING_STARTED_BY'  # an environment variable, which all descendants inherit

needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='processes are looked up in /proc')


def marked_environment(**variables):
    """An environment for a program whose processes are to be found again."""
    return {**os.environ, MARK: uuid.uuid4().hex, **variables}


def processes_with(environment):
    """Dict pid → command line of the processes that were started with this environment, directly or not."""
    found = {}
    mark = f'{MARK}={environment[MARK]}'.encode()
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as f:
                if mark in f.read().split(b'\0'):
                    with open(f'/proc/{pid}/cmdline', 'rb') as g:
                        found[int(pid)] = g.read().replace(b'\0', b' ').decode('utf-8', 'replace')[:100]
        except OSError:  # it has ended, or is another user's
            pass
    return found


def seconds_until_gone(environment, longest):
    """After how many seconds the last of them has ended; AssertionError after `longest`."""
    begin = time.monotonic()
    while time.monotonic() - begin < longest:
        if not processes_with(environment):
            return time.monotonic() - begin
        time.sleep(.02)
    raise AssertionError(f'after {longest} s there are still {processes_with(environment)}')


def kill_all(environment):
    """Kills what is left of them."""
    for pid in processes_with(environment):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def side_by_side(check, cases):
    """Calls `check(*case)` for each case, two at a time: most of their time is that of programs that start."""
    def named(case):
        try:
            check(*case)
        except Exception as error:
            raise AssertionError(f'{case}: {error}') from error

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(named, cases))


def hear_signals():
    """What this process starts from now on hears Ctrl-C and hangups, also where nohup or a shell's & have them ignored here."""
    for name in ('SIGINT', 'SIGHUP'):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # a function is not inherited, as being ignored is
