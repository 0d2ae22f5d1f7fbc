"""How pyfuse3's loop waits for the next request: first a look, then a short spin, then trio.

pyfuse3 looks trio's names up in one module variable, so that another event loop can stand there
(its own asyncio support does); here trio itself stands there with a cheaper lock and a quicker wait.
With trio's own, each request costs three turns of the event loop; a process that works on the mount
sends its next request within microseconds of the last answer (benchmarks: first stat, rename, unlink).
"""

import select
import time
from collections.abc import Callable
from typing import Any

import pyfuse3
import trio

_SPIN_NS = 40_000  # how long to look for the next request before sleeping
_REST = 1.0  # seconds without a request after which what is kept for the next one is given up
_TURN_NS = 1_000_000  # other tasks (signals, control socket, finished copies) wait no longer than this


class _Lock:
    """trio.Lock without its visit to the scheduler when nobody holds the lock."""

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
    """Stands for the module `trio` inside pyfuse3, for one session. `rest` is called once when no request has
    come for a while.
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
        """Before pyfuse3.init."""
        vars(pyfuse3)["trio"] = self

    def Lock(self) -> _Lock:
        return self._lock

    def __getattr__(self, name: str) -> Any:
        """current_task, current_trio_token: as they are."""
        return getattr(trio.lowlevel, name)

    def notify_closing(self, fd: int) -> None:
        """pyfuse3.terminate: also for a reader that was about to wait."""
        self._closing = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when a request can be read."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        look = self._poll.poll
        now = time.monotonic_ns()
        if now > self._turn or not self._lock.waiting:  # without a second reader pyfuse3 would start many
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
        self._spin = max(self._spin >> 1, 1)  # nobody is in a hurry: do not burn the processor for nothing
        with trio.move_on_after(_REST) as idle:
            await trio.lowlevel.wait_readable(fd)
        if idle.cancelled_caught:
            self._rest()
            await trio.lowlevel.wait_readable(fd)
        self._turn = time.monotonic_ns() + _TURN_NS
