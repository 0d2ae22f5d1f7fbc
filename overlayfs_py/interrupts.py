"""What Ctrl-C does while our programs load, and wherever there is nothing to clean up."""

# The built-in part of `signal`, which imports nothing else; it has no types.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)


def end_quietly() -> None:
    """Let SIGINT end this process silently, as SIGTERM does, unless it is ignored (nohup, a shell's ``&``).

    Python's own handler raises at any point, also in the middle of an import or in a callback, and prints a
    traceback. Code that has something to clean up sets its own handler.
    """
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)
