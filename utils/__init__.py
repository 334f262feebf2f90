"""What all tasks share. From its first import on a Ctrl-C ends a script in a word, while further imports take their seconds."""
import sys


def _endInAWord(kind, error, trace, otherwise=sys.excepthook):
    if issubclass(kind, KeyboardInterrupt):
        print('\nStopped.', file=sys.stderr)
    else:
        otherwise(kind, error, trace)


sys.excepthook = _endInAWord
