"""The one error that invsr raises for input it cannot use, its warning, and the user's stop."""


class InvsrError(ValueError):
    """Unusable input: the message says what is wrong, where, and what to do about it, in one line."""


class InvsrWarning(UserWarning):
    """Something usable but doubtful: one line that says what was found and what was done about it."""


class Interrupted(Exception):  # noqa: N818  # not an error
    """The user stopped a command: the message says what there is now and how to go on, in one line."""
