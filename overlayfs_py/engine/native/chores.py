"""Long work that only the loop can do, a little at a time: others wait for one slice of it, not for all.

Work is an iterator, each step of which takes a millisecond at most, or little more.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter

log = logging.getLogger("overlayfs_py.engine.native")

# Seconds between two requests.
_SLICE = 1e-3

Work = Iterator[None]


class Chores:
    """The work under way; all of it belongs to the loop's thread."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: deque[tuple[Work, Callable[[], None]]] = deque()

    @property
    def pending(self) -> bool:
        return bool(self._work)

    def begin(self, work: Work, then: Callable[[], None] = lambda: None) -> None:
        """Do `work` between requests, and call `then` when it is done or has failed: whoever wanted it tries
        again, and meets what is wrong.
        """
        self._work.append((work, then))

    def slice(self) -> None:
        """Do a little of what has waited longest."""
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
        """Give up what is under way."""
        self._work.clear()
