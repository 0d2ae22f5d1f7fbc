"""What Ctrl-C does to our programs while Python loads them, and where there is nothing to put in order."""

# The built-in part of `signal`, which loads nothing; it has no types.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)


def end_quietly() -> None:
    """From here on SIGINT ends this process as SIGTERM does, unless it is ignored (nohup, a shell's ``&``).

    Python's own handler raises wherever the program is just then, also in the middle of an import or in a
    callback, where it prints a traceback. Whoever has something to put in order sets a handler of its own.
    """
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)
