"""Files that others have written: whatever is wrong with one ends in a sentence with its name."""
import contextlib
import json

from utils.files.errors import UserError


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
        raise UserError(f'{path} cannot be used: {faultIn(error)}. {advice}') from error


def faultIn(error):
    """What an error says: a `ValueError` is a sentence already, others need their type's name."""
    return str(error) if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'


def jsonIn(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)


def linesIn(path):
    """The number and the text of each line that is not empty."""
    with open(path, encoding='utf-8-sig') as f:
        return [(number, line.rstrip('\n')) for number, line in enumerate(f, 1) if line.strip()]
