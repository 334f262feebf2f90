"""What a log and a terminal show, and how a script ends: in a sentence, or in one stack trace."""
import os
import subprocess
import sys
import textwrap

import pytest

from utils.files.project import PROJECT
from utils.scripts.endings import KEPT


def errors_of(code):
    """What a script writes to stderr whose `main` consists of this code, and its exit status."""
    main = textwrap.indent(textwrap.dedent(code), '    ')
    program = f'''
import os, signal, time
from utils.scripts.endings import runScript

def main():
{main}

runScript(main)
'''
    done = subprocess.run([sys.executable, '-c', program], cwd=PROJECT, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=60)
    return done.stderr, done.returncode


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
@pytest.mark.parametrize('names', [['SIGINT'], ['SIGTERM'], ['SIGHUP'], ['SIGINT', 'SIGTERM']])
def test_signals_end_a_script_in_one_sentence(names):
    """A person's, a batch system's, a closed terminal's; two of them at once."""
    errors, status = errors_of(f'''
        signals = [getattr(signal, name) for name in {names!r}]
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for number in signals:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        time.sleep(100)
        ''')
    assert errors.strip() == f'Stopped. {KEPT}' and status == 1


def test_an_error_is_the_only_stack_trace():
    errors, status = errors_of("raise ValueError('the only one')")
    assert errors.count('Traceback') == 1 and errors.endswith('ValueError: the only one\n')
    assert status == 1
