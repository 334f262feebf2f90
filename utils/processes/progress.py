"""How far a pass over the images is: a bar in a terminal or a notebook, lines in a log."""
import sys

from tqdm.auto import tqdm

from utils.processes.distributed import isMain

SECONDS_BETWEEN_LINES = 30  # in a log


def progressBar(iterable, description, modelParam, total=None):
    """The iterable, which shows how far it is; it shows nothing beside the main process.

    Where it has no length, `total` is the number of its items, if that is known.

    Its method `set_postfix_str(text, refresh=False)` sets what is shown behind, such as the loss.
    """
    options = {}
    if not modelParam['inNotebook'] and not sys.stderr.isatty():
        seconds = SECONDS_BETWEEN_LINES
        options = {'file': Log(), 'delay': seconds, 'mininterval': seconds, 'maxinterval': seconds}
    return tqdm(iterable, description, total, leave=False, position=0, disable=not isMain(),
                **options)


class Log:
    """Writes each state of a bar to stderr as a line of its own."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)
