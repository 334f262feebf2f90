"""The error that ends a script in a sentence."""


class UserError(Exception):
    """Something that the person who started a script can mend; the message says what is wrong, where, and what to do."""

    def __str__(self):
        return super().__str__().split(f'{__name__}.UserError: ')[-1].strip()  # a loader process adds its stack trace in front
