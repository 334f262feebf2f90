"""Errors that end a script in a sentence."""


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong, where, and what to do."""


def isFullGpu(error):
    """Whether an error says that a GPU has no memory left."""
    text = str(error).lower()
    return 'cuda' in text and ('out of memory' in text or 'alloc_failed' in text)
