"""Undo a temporary change, whatever ends the block that needed it.

A signal may raise an exception at any instant, also inside a ``finally`` that removes something. A process
unwinds only once (`layerstore.cli.interrupts`), so that a second attempt is enough.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end; again if that is interrupted, so it must be idempotent."""
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
