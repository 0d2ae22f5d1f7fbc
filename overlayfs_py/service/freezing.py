"""Freezing a mount: from the answer on its upper is the state of one instant, until it is thawed.

What the kernel holds back is written first, then requests that change something are held, those under way
end, and the upper is synced; reading goes on. No freeze lasts for ever: one ends with its time, one that is
held by a conversation with that, and every one when the mount goes.
"""

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from overlayfs_py.engine import Engine
from overlayfs_py.errors import MountError, shown
from overlayfs_py.service.mountpoint import LiveMount
from overlayfs_py.service.writeback import WriteBack

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

log = logging.getLogger("overlayfs_py.freeze")

# How long requests under way may take to end (a copy-up may be long) before freezing is given up.
PATIENCE = 60.0
# How long pages may take to be written once changes are held: one that a held request has locked cannot be.
_LAST_PAGES = 2.0
_LOOK_EVERY = 0.25


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Freeze:
    """One freeze. `since`: when changes began to be held; `until`: when it ends by itself, if ever.

    `pages_left`: pages changed through mappings could not all be written, as a held request has them locked.
    """

    since: float
    until: float | None
    pages_left: bool

    def seconds_left(self) -> float | None:
        """Until it ends by itself."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())


class Freezer:
    """Freezes one mount and thaws it again; only from `allow` on."""

    def __init__(self, engine: Engine, overlay: "Overlay", mountpoint: bytes) -> None:
        self._engine = engine
        self._overlay = overlay
        self._shown = shown(mountpoint)
        self._mount: LiveMount | None = None
        self._freezing: trio.CancelScope | None = None
        self._frozen = trio.Event()
        self._ended = ""  # why the last freeze ended, when nobody asked for that
        self.current: Freeze | None = None

    @property
    def holds(self) -> bool:
        """Whether the mount is frozen, or just being frozen."""
        return self.current is not None or self._freezing is not None

    def allow(self, mount: LiveMount) -> None:
        """The mount is ready."""
        self._mount = mount

    async def freeze(self, timeout: float | None) -> Freeze:
        """Freeze, for at most `timeout` seconds; MountError when it cannot be: it is as it was then."""
        mount = self._ready_mount()
        if self.holds:
            raise MountError(f"{self._shown} is frozen already")
        self._ended = "requests under way do not end"
        with trio.move_on_after(PATIENCE) as self._freezing:
            try:
                since, pages_left = await self._hold(mount)
                until = None if timeout is None else time.monotonic() + timeout
                self.current = Freeze(since=since, until=until, pages_left=pages_left)
                self._frozen.set()
                return self.current
            except (MountError, OSError) as error:
                self._ended = str(error.strerror if isinstance(error, OSError) else error)
            finally:
                self._freezing = None
                if self.current is None:
                    self._engine.thaw()
        raise MountError(f"{self._shown} cannot be frozen: {self._ended}")

    def thaw(self) -> float:
        """Thaw; for how long changes were held. MountError when the mount is not frozen."""
        frozen = self.current
        if frozen is None:
            raise MountError(f"{self._shown} is not frozen" + (f": {self._ended}" if self._ended else ""))
        self._ended = ""
        self.current = None
        self._engine.thaw()
        return time.monotonic() - frozen.since

    def release(self, frozen: Freeze) -> None:
        """Thaw if this very freeze still lasts: who wanted it has gone."""
        if self.current is frozen:
            log.info("%s: thawed, as whoever had it frozen has gone", self._shown)
            self.end("who wanted it has gone")

    def end(self, reason: str) -> None:
        """Thaw, also what is just being frozen; idempotent."""
        if self.holds:
            self._ended = reason
        if self._freezing is not None:
            self._freezing.cancel()
        if self.current is not None:
            self.current = None
            self._engine.thaw()

    def stop(self) -> None:
        """Thaw, and never freeze again: the mount goes."""
        self._mount = None
        self.end("it is being unmounted")

    async def watch(self) -> None:
        """End freezes whose time is up or whose mount has gone; until cancelled."""
        while True:
            await self._frozen.wait()
            self._frozen = trio.Event()
            while (frozen := self.current) is not None:
                left = frozen.seconds_left()
                if left == 0:
                    log.warning("%s: thawed, as its time was up", self._shown)
                    self.end("its time was up")
                elif self._mount is not None and not self._mount.is_there():
                    self.end("it was unmounted")
                else:
                    await trio.sleep(_LOOK_EVERY if left is None else min(left, _LOOK_EVERY))

    async def sync(self) -> float:
        """Make all changes durable; how many seconds it took. MountError when that cannot be done now."""
        start = time.monotonic()
        mount = self._ready_mount()
        if self.holds:
            raise MountError(f"{self._shown} is frozen: thaw it first")
        if self._overlay.options.volatile:
            raise MountError(f"{self._shown} is volatile: nothing on it is made durable")
        try:
            async with WriteBack(self._engine, mount.mountpoint) as pages:
                await pages.write()
            await trio.to_thread.run_sync(self._overlay.sync)
        except OSError as error:
            raise MountError(f"{self._shown} cannot be synced: {error.strerror}") from error
        return time.monotonic() - start

    def _ready_mount(self) -> LiveMount:
        if self._mount is None:
            raise MountError(f"{self._shown} is not ready yet, or is being unmounted")
        return self._mount

    async def _hold(self, mount: LiveMount) -> tuple[float, bool]:
        """Since when changes are held, and whether changed pages are left.

        Everything is written twice, so that little is left to do while writers wait. Only an engine that can
        tell pages being written back from new writes can have them written while it holds the latter.
        """
        pages_left = False
        async with WriteBack(self._engine, mount.mountpoint) as pages:
            await pages.write()
            await trio.to_thread.run_sync(self._overlay.sync)
            since = time.monotonic()
            if self._engine.capabilities.marked_write_back:
                await self._engine.freeze(write_back=True)
                with trio.move_on_after(_LAST_PAGES) as writing:
                    await pages.write()
                pages_left = writing.cancelled_caught
            await self._engine.freeze()
        await trio.to_thread.run_sync(self._overlay.sync)
        return since, pages_left
