"""How pyfuse3 waits for the next request: first a poll, then a short spin, then trio.

pyfuse3 finds trio's functions through one module variable, so that another event loop can be put there (its
asyncio support does so). This class puts trio there with a cheaper lock and a faster wait. With trio's own,
each request costs three turns of the event loop, while a busy client sends its next request within
microseconds of the last answer (benchmarks: stat, first; rename of a new file; unlink of a new file).
"""

import select
import time
from collections.abc import Callable
from typing import Any

import pyfuse3
import trio

_SPIN_NS = 40_000  # how long to poll for the next request before sleeping
_REST = 1.0  # seconds without a request after which the union releases what it keeps for the next one
_TURN_NS = 1_000_000  # the longest that other tasks (signals, control socket, finished copies) wait


class _Lock:
    """trio.Lock without the checkpoint when the lock is free."""

    def __init__(self) -> None:
        self._held = False
        self._parked = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        return len(self._parked)

    async def __aenter__(self) -> None:
        while self._held:
            await self._parked.park()
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        self._parked.unpark()


class RequestLoop:
    """Replaces the module `trio` inside pyfuse3, for one session.

    `rest` is called once when no request has come for a second.
    """

    ClosedResourceError = trio.ClosedResourceError
    open_nursery = staticmethod(trio.open_nursery)

    def __init__(self, rest: Callable[[], None]) -> None:
        self.lowlevel = self
        self._rest = rest
        self._lock = _Lock()
        self._poll: select.poll | None = None
        self._spin = _SPIN_NS
        self._turn = 0
        self._closing = False

    def install(self) -> None:
        """Put it in place; call before pyfuse3.init."""
        vars(pyfuse3)["trio"] = self

    def Lock(self) -> _Lock:
        return self._lock

    def __getattr__(self, name: str) -> Any:
        """Return trio's own current_task and current_trio_token."""
        return getattr(trio.lowlevel, name)

    def notify_closing(self, fd: int) -> None:
        """Called by pyfuse3.terminate; also ends a reader that has not begun to wait."""
        self._closing = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when a request can be read."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        look = self._poll.poll
        now = time.monotonic_ns()
        if (
            now > self._turn or not self._lock.waiting
        ):  # without a waiting second reader pyfuse3 would start more and more
            await trio.lowlevel.checkpoint()
            now = time.monotonic_ns()
            self._turn = now + _TURN_NS
        if self._closing:
            raise trio.ClosedResourceError
        if look(0):
            return
        end = now + self._spin
        while time.monotonic_ns() < end:
            if look(0):
                self._spin = _SPIN_NS
                return
        self._spin = max(self._spin >> 1, 1)  # the client is slow: spend less processor time
        with trio.move_on_after(_REST) as idle:
            await trio.lowlevel.wait_readable(fd)
        if idle.cancelled_caught:
            self._rest()
            await trio.lowlevel.wait_readable(fd)
        self._turn = time.monotonic_ns() + _TURN_NS
