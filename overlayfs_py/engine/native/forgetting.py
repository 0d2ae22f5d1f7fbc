"""FORGET and BATCH_FORGET, done when no request waits for an answer, and giving memory back afterwards.

Forgetting a node costs more than most answers: it closes descriptors, and the last one of a removed file
frees its blocks. A client that removes a tree would wait for that between its requests (benchmarks: unlink of
a new file, rm -rf of 3,000 new files).
"""

from collections import deque
from collections.abc import Callable, Iterator

from overlayfs_py.engine.native import message
from overlayfs_py.engine.native.message import Request
from overlayfs_py.syscalls.memory import give_back

# Nodes that may wait until no request does.
_MOST = 4096
_AT_ONCE = 20
# Seconds. FORGETs come in bursts (memory pressure, a removed tree); giving memory back takes milliseconds.
_TRIM_AFTER = 1.0


class Backlog:
    """The nodes still to be forgotten.

    `take_back(nodeid, lookups)` forgets one; `begin` starts a chore when too many wait.
    """

    __slots__ = ("_begin", "_is_worked_off", "_take_back", "_waiting")

    def __init__(
        self, take_back: Callable[[int, int], None], begin: Callable[[Iterator[None]], None]
    ) -> None:
        self._take_back = take_back
        self._begin = begin
        self._waiting: deque[tuple[int, int]] = deque()
        self._is_worked_off = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, nodeid: int, lookups: int) -> None:
        self._waiting.append((nodeid, lookups))
        if len(self._waiting) > _MOST and not self._is_worked_off:
            self._is_worked_off = True
            self._begin(self._worked_off())

    def _worked_off(self) -> Iterator[None]:
        yield from self.shortened(_MOST)
        self._is_worked_off = False

    def shortened(self, most: int) -> Iterator[None]:
        """Forget some at each step, until no more than `most` wait."""
        while len(self._waiting) > most:
            for _ in range(min(_AT_ONCE, len(self._waiting) - most)):
                self.shorten()
            yield

    def shorten(self) -> bool:
        """Forget one; False when there is none."""
        if not self._waiting:
            return False
        self._take_back(*self._waiting.popleft())
        return True

    def clear(self) -> bool:
        """Forget all; False when there was none."""
        found = bool(self._waiting)
        while self.shorten():
            pass
        return found


class MemoryTrim:
    """Gives freed memory back to the system, once a burst of FORGETs is over.

    `later(seconds, call)` has the loop's thread make a call between two requests.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._later = later
        self._is_scheduled = False

    def schedule(self) -> None:
        """Give memory back a second from now; further calls until then change nothing."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._later(_TRIM_AFTER, self._trim)

    def _trim(self) -> None:
        self._is_scheduled = False
        give_back()


class ForgetRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def forget(self, request: Request, lookups: int) -> None:
        self._backlog.add(request.nodeid, lookups)

    def batch_forget(self, request: Request, count: int, payload: memoryview) -> None:
        for nodeid, lookups in message.forgets(count, payload):
            self._backlog.add(nodeid, lookups)
