"""The error that ends a script in a sentence."""


class UserError(Exception):
    """Something that the user can mend; the message says what is wrong, where, and what to do."""
