"""The one exception that stands for a mistake of the user's, not of the program's."""


class UserError(Exception):
    """Something the user can put right.

    The message is one clear sentence: it names the file, row or key, says what is wrong with it and what to
    do. The command line prints it without a traceback and exits with code 2.
    """
