"""Functions that an operation calls to report remarks and progress."""

from collections.abc import Callable

Note = Callable[[str], None]  # one line for the user
Progress = Callable[[int], None]  # bytes done
MeasuredProgress = Callable[[int, int], None]  # bytes done, bytes in all


def note_or_log(note: Note | None) -> Note:
    """Return `note`, or the log's warning level when there is none."""
    if note is not None:
        return note
    import logging  # 3 ms that the command, which has its own function for notes, does not pay

    return logging.getLogger("layerstore").warning
