"""Progress over the images: a bar in a terminal or a notebook, lines in a log."""
import sys

from tqdm.auto import tqdm

from utils.processes.distributed import isMain

SECONDS_BETWEEN_LINES = 30  # in a log


def progressBar(iterable, description, modelParam, total=None):
    """The iterable with a progress bar, shown by the main process alone.

    `modelParam` says whether this is a notebook; without the key it is none. `total` is the number
    of items, if `iterable` has no length and this is known.

    Its method `set_postfix_str(text, refresh=False)` sets a text after the bar, such as the loss.
    """
    options = {}
    if not modelParam.get('inNotebook') and not sys.stderr.isatty():
        seconds = SECONDS_BETWEEN_LINES
        options = {'file': Log(), 'delay': seconds, 'mininterval': seconds, 'maxinterval': seconds}
    return tqdm(iterable, description, total, leave=False, position=0, disable=not isMain(),
                **options)


class Log:
    """Writes each state of a bar to stderr as a line of its own."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)
