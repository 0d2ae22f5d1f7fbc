"""Decide whether to do disk I/O inline or in a worker thread.

Handing work to a thread takes longer than a read from the cache or a fast disk (benchmarks: 4 KiB random
read, warm). But while the loop waits for a slow disk, every other request waits too. A running average of
recent durations decides.
"""

from collections.abc import Callable
from time import perf_counter

# Seconds that other requests may wait for one.
_ENOUGH = 2e-3
_SPREAD = 4


class LatencyAverage:
    """A running average for one kind of work. `is_slow`: give it to a thread, until threads find it quick
    again.
    """

    __slots__ = ("_usual",)

    def __init__(self) -> None:
        self._usual = 0.0

    @property
    def is_slow(self) -> bool:
        return self._usual > _ENOUGH

    def record(self, seconds: float) -> None:
        """Take in one duration. A single long one, however long, does not make the average slow."""
        self._usual += (min(seconds, 3 * _ENOUGH) - self._usual) / _SPREAD


class Timed:
    """`work` for a worker thread, timed; the loop's thread puts the time into `latency` afterwards."""

    __slots__ = ("_latency", "_seconds", "_work")

    def __init__(self, work: Callable[[], object], latency: LatencyAverage) -> None:
        self._work = work
        self._latency = latency
        self._seconds = 0.0

    def __call__(self) -> None:
        start = perf_counter()
        self._work()
        self._seconds = perf_counter() - start

    def report(self) -> None:
        """Take the time into the average; call it in the loop's thread, and only after success."""
        self._latency.record(self._seconds)
