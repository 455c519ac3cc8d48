"""Exceptions that stand for what a user did, not for what the program did wrong."""

import signal


class UserError(Exception):
    """Something the user can put right.

    The message is one clear sentence: it names the file, row or key, says what is wrong with it and what to
    do. The command line prints it without a traceback and exits with code 2.
    """


class UserValueError(UserError, ValueError):
    """A `UserError` where code written for `transformers` expects a `ValueError`: wrong arguments of a model."""


class EveryRankError(UserError):
    """A `UserError` that every rank of a training raises; the first one prints it."""


def in_one_line(error: BaseException) -> str:
    """Return what an exception says as one line without a full stop, to be the reason in a message."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


class Stopped(Exception):  # noqa: N818 - not an error
    """The user or the scheduler stopped a long job, which has saved what it needs to go on.

    Args:
        signal_number: What asked for it: SIGINT (Ctrl-C) or SIGTERM (pre-emption).
    """

    def __init__(self, signal_number: int = signal.SIGINT) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
