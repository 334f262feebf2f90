"""Errors that end a script in a sentence. Whatever goes wrong in reading other people's files
becomes one of them."""
import contextlib
import errno
import io
import json
import os
import re
import stat


class UserError(Exception):
    """Something that the user can fix; the message says what is wrong, where, and what to do."""


def isOfGpu(error):
    """Whether an error comes from a GPU."""
    return isinstance(error, RuntimeError) and re.search('cuda|cudnn|cublas', str(error).lower())


@contextlib.contextmanager
def foreignFile(path, advice):
    """Turns every error inside the `with` block into a `UserError` that names the file.

    Args:
        path: of the file that is read.
        advice: what to do about it, a sentence.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isOfGpu(error):  # no fault of the file
            raise
        raise UserError(printable(f'{path} cannot be used: {faultIn(error)}. {advice}')) from error


def faultIn(error):
    """What an error says: a `ValueError` is a sentence already, others need their type's name."""
    if isinstance(error, KeyError):
        return f'it has no {error}'
    return str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'


def printable(text):
    """The text with spaces for control characters and what cannot be encoded."""
    return re.sub('[\0-\x1f\x7f-\x9f\ud800-\udfff]', ' ', text)


def openRegular(path):
    """The file `path`, open for reading bytes.

    Raises:
        OSError: it cannot be opened, or it is a pipe or a device, which may have no end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, 'it is not a regular file', path)
    return open(path, 'rb')


def jsonIn(path):
    with openRegular(path) as f:
        return json.load(f)


def linesIn(path):
    """The number and the text of each line that is not empty."""
    with io.TextIOWrapper(openRegular(path), encoding='utf-8-sig') as f:
        return [(number, line.rstrip('\n')) for number, line in enumerate(f, 1) if line.strip()]
