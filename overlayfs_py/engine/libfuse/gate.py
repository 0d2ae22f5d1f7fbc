"""The gate of the pyfuse3 engine: while a mount is frozen, requests that change something wait here.

libfuse does not pass on interrupts, so a waiting request cannot be cancelled. Nor does it distinguish
write-back of pages from new writes, so all WRITEs wait.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from overlayfs_py.engine.base import CHANGING
from overlayfs_py.union.overlay import WRITING


class Gate:
    """Counts the changing requests in progress; closed, it holds new ones, and later lets them in in
    order.
    """

    def __init__(self) -> None:
        self._closed = False
        self._under_way = 0
        self._quiet = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def held(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def enter(self) -> None:
        if self._closed or self._waiting:
            while True:
                await self._waiting.park()
                if not self._closed:
                    break
            self._under_way += 1
            self._waiting.unpark()  # the next one enters after this one has begun
        else:
            self._under_way += 1

    def leave(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()

    async def close(self) -> None:
        """Hold further requests; return when none is in progress."""
        self._closed = True
        while self._under_way:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def open(self) -> None:
        """Let all waiting requests in; idempotent."""
        if self._closed:
            self._closed = False
            self._waiting.unpark()


class Gated(Protocol):
    """An object with a gate."""

    gate: Gate


def gated(operation: str, request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return `request`, made to wait at the gate if it changes something."""
    if operation == "open":
        return _gated(request, lambda nodeid, flags, ctx: bool(flags & WRITING))
    return _gated(request, lambda *_: True) if operation in CHANGING else request


def _gated(
    request: Callable[..., Awaitable[Any]], changes: Callable[..., bool]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(request)
    async def wait_and_answer(self: Gated, *arguments: Any) -> Any:
        if not changes(*arguments):
            return await request(self, *arguments)
        gate = self.gate
        await gate.enter()
        try:
            return await request(self, *arguments)
        finally:
            gate.leave()

    return wait_and_answer
