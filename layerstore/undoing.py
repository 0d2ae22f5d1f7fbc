"""Taking back what was only for the moment, whatever ends that moment.

A signal may raise an exception at any instant, also in the midst of a ``finally`` that removes something. One
who is told to stop unwinds once (`layerstore.cli.interrupts`), so that trying again is enough.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """`undo` is done at the end; once more if that is interrupted, so it must be idempotent."""
    try:
        yield
    finally:
        try:
            undo()
        except Exception:
            raise
        except BaseException:
            undo()
            raise
