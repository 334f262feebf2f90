"""How far a pass over the images is: a bar in a terminal or a notebook, a line now and then elsewhere."""
import contextlib
import datetime
import sys
import threading
import time

from tqdm.auto import tqdm

from utils.processes.distributed import isMain

SECONDS_BETWEEN_LINES = 60
LONG = 10  # seconds, after which it is said what the script is doing


def progressBar(iterable, description, modelParam):
    """The iterable, which shows how far it is; beside the main process it shows nothing.

    Its method `set_postfix_str(text, refresh=False)` takes what is to be shown besides, such as the loss so far.
    """
    if isMain() and not modelParam['inNotebook'] and not sys.stderr.isatty():
        return ProgressLines(iterable, description)
    return tqdm(iterable, desc=description, leave=False, disable=not isMain())


class ProgressLines:
    """An iterable that prints every minute where it is and when it will be through, for a log.

    Args:
        iterable: with a length.
        description: what it is, in words.
    """

    def __init__(self, iterable, description):
        self.iterable = iterable
        self.description = description
        self.postfix = ''

    def set_postfix_str(self, text, refresh=False):
        """Sets what the next line ends in."""
        self.postfix = f', {text}'

    def __iter__(self):
        start = said = time.monotonic()
        for number, item in enumerate(self.iterable):
            now = time.monotonic()
            if now - said >= SECONDS_BETWEEN_LINES and number:
                said = now
                left = (now - start) / number * (len(self.iterable) - number)
                end = datetime.datetime.now() + datetime.timedelta(seconds=left)
                print(f'{self.description}: {number:,} of {len(self.iterable):,} batches{self.postfix}, done in {left / 60:.0f} '
                      f'min, at {end:%H:%M}', file=sys.stderr, flush=True)
            yield item


@contextlib.contextmanager
def saidWhenLong(doing):
    """In a log it is said what the script is doing in the block, should that take long."""
    timer = threading.Timer(LONG, print, [f'{doing} …'], {'file': sys.stderr, 'flush': True})
    timer.daemon = True
    if isMain() and not sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
