"""What Ctrl-C does to our programs while Python loads them, and where there is nothing to put in order."""

import signal


def end_quietly() -> None:
    """From here on SIGINT ends this process as SIGTERM does, unless it is ignored (nohup, a shell's ``&``).

    Python's own handler raises wherever the program is just then, also in the middle of an import or in a
    callback, where it prints a traceback. Whoever has something to put in order sets a handler of its own.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
