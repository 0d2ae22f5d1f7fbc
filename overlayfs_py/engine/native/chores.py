"""Long work for the loop's thread, done in slices, so that other requests wait for one slice at most.

Work is an iterator whose steps take about a millisecond at most (benchmarks: list 100,000 names, first).
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter

log = logging.getLogger("overlayfs_py.engine.native")

# Seconds of work between two requests.
_SLICE = 1e-3

Work = Iterator[None]


class Chores:
    """The work in progress; used by the loop's thread only."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: deque[tuple[Work, Callable[[], None]]] = deque()

    @property
    def pending(self) -> bool:
        return bool(self._work)

    def begin(self, work: Work, then: Callable[[], None] = lambda: None) -> None:
        """Do `work` between requests, and call `then` when it is done or has failed.

        After a failure the request that wanted it is repeated, and gets the error then.
        """
        self._work.append((work, then))

    def slice(self) -> None:
        """Do a slice of the work that has waited longest."""
        work, then = self._work[0]
        end = perf_counter() + _SLICE
        try:
            while perf_counter() < end:
                next(work)
        except StopIteration:
            self._done(then)
        except Exception as error:
            log.debug("a chore failed", exc_info=error)
            self._done(then)
        else:
            self._work.rotate(-1)

    def _done(self, then: Callable[[], None]) -> None:
        self._work.popleft()
        then()

    def clear(self) -> None:
        """Drop all work."""
        self._work.clear()
