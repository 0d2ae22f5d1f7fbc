"""FORGET and BATCH_FORGET: they are worked off when nobody waits for an answer.

Forgetting a node costs more than most answers: descriptors are closed, and with the last one of a removed
file its blocks are freed. Who removes a tree would wait for that between any two of its requests.
"""

from collections import deque
from collections.abc import Callable

from overlayfs_py.engine.native import message
from overlayfs_py.engine.native.message import Request

# Nodes that may wait; what comes on top of them is worked off at once.
_MOST = 4096


class Backlog:
    """What is still to be forgotten. `take_back` gets a nodeid and how many lookups of it are given back."""

    __slots__ = ("_take_back", "_waiting")

    def __init__(self, take_back: Callable[[int, int], None]) -> None:
        self._take_back = take_back
        self._waiting: deque[tuple[int, int]] = deque()

    def add(self, nodeid: int, lookups: int) -> None:
        self._waiting.append((nodeid, lookups))
        if len(self._waiting) > _MOST:
            self.shorten()

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


class ForgetRequests:
    """Handlers; each method answers the opcode it is named after."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def forget(self, request: Request, lookups: int) -> None:
        self._backlog.add(request.nodeid, lookups)

    def batch_forget(self, request: Request, count: int, payload: memoryview) -> None:
        for nodeid, lookups in message.forgets(count, payload):
            self._backlog.add(nodeid, lookups)
