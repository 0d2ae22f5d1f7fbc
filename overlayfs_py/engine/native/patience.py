"""Decide whether to do disk I/O inline or in a worker thread.

Handing work to a thread costs more than reading what is cached, or than a quick disk; but while the loop
waits for a slow disk, every other request waits too. A running average of recent durations decides.
"""

from collections.abc import Callable
from time import perf_counter

# Seconds; others may be kept waiting as long as this.
_ENOUGH = 2e-3
_SPREAD = 4


class Patience:
    """For one kind of work. `lost`: leave it to a thread, until threads find it quick again."""

    __slots__ = ("_usual",)

    def __init__(self) -> None:
        self._usual = 0.0

    @property
    def lost(self) -> bool:
        return self._usual > _ENOUGH

    def took(self, seconds: float) -> None:
        """It took so long this time. One exception, however long, is not enough to lose patience."""
        self._usual += (min(seconds, 3 * _ENOUGH) - self._usual) / _SPREAD


class Timed:
    """`work` for a worker's thread; the loop's tells `patience` afterwards how long it took."""

    __slots__ = ("_patience", "_seconds", "_work")

    def __init__(self, work: Callable[[], object], patience: Patience) -> None:
        self._work = work
        self._patience = patience
        self._seconds = 0.0

    def __call__(self) -> None:
        start = perf_counter()
        self._work()
        self._seconds = perf_counter() - start

    def tell(self) -> None:
        """To be called when it has not failed."""
        self._patience.took(self._seconds)
