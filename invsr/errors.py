"""The one error that invsr raises for input it cannot use."""


class InvsrError(ValueError):
    """Unusable input: the message says what is wrong, where, and what to do about it, in one line."""


class InvsrWarning(UserWarning):
    """Something usable but doubtful: one line that says what was found and what was done about it."""
