"""Copy-ups off the event loop: a worker thread transfers the bytes while other requests continue.

There is one copy of a node at a time; a second writer waits for it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from overlayfs_py.engine.copying import INLINE_SIZE, CopyUpEffects
from overlayfs_py.union.overlay import Node

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import CopyUp, Overlay


class Copies:
    """The copy-ups in progress. `changed` is called with each node that got an upper part."""

    def __init__(
        self, overlay: "Overlay", limiter: trio.CapacityLimiter, changed: Callable[[Node], None]
    ) -> None:
        self._overlay = overlay
        self._limiter = limiter
        self._changed = changed
        self._inline_size = INLINE_SIZE if overlay.options.volatile else -1
        self._running: dict[Node, trio.Event] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def settled(self, node: Node) -> None:
        """Wait until no copy of `node` is in progress; no checkpoint when there is none."""
        while (running := self._running.get(node)) is not None:
            await running.wait()

    async def ensure_upper(self, node: Node, *, data: bool) -> None:
        """Give `node` an upper part (`data`: with its contents); raises the errors of the copy."""
        await self.settled(node)
        effects = CopyUpEffects(self._overlay, node)
        job = self._overlay.copy_up(node, data=data)
        if job is not None:
            async with self.held(node):
                await self._carry_out(job)
        self._report(effects)

    @asynccontextmanager
    async def held(self, node: Node) -> AsyncIterator[None]:
        """Keep other copies of `node` waiting inside the block; waits for earlier ones first."""
        await self.settled(node)
        done = self._running[node] = trio.Event()
        try:
            yield
        finally:
            del self._running[node]
            done.set()

    async def _carry_out(self, job: "CopyUp") -> None:
        try:
            if job.size <= self._inline_size:
                job.transfer()
            else:
                await trio.to_thread.run_sync(job.transfer, limiter=self._limiter)
            job.commit()
        except BaseException:
            job.abort()
            raise

    @contextmanager
    def reporting(self, node: Node) -> Iterator[None]:
        """Report `node` and the directories above it if they are copied up inside the block."""
        effects = CopyUpEffects(self._overlay, node)
        try:
            yield
        finally:
            self._report(effects)

    def _report(self, effects: CopyUpEffects) -> None:
        for node in effects.copied_up():
            self._changed(node)
