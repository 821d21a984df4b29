"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something only the user can mend: bad input, a full disk, a NaN loss.

    The message is one line that says what is wrong, where (file, image id, key) and how to mend it.
    The command line prints it without a traceback and leaves with exit code 2.
    """
