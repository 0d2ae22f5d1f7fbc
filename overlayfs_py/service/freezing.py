"""Freeze a mount: until it is thawed, its upper holds the state of one instant (decision 0017).

Data that the kernel holds back is written first; then changing requests are held, those in progress end, and
the upper is synced. Reading continues. No freeze lasts for ever: it ends when its time is up, when the
connection that holds it closes, and when the mount is unmounted.
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

# Seconds that requests in progress may take to end (a copy-up may be long) before the freeze fails.
_END_SECONDS = 60.0
# Seconds for writing pages once changes are held; a page that a held request has locked cannot be written.
_LAST_PAGES = 2.0
_LOOK_EVERY = 0.25


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Freeze:
    """One freeze. `since`: when the hold began; `until`: when the freeze ends automatically, if ever.

    `pages_left`: some pages changed through mappings are not written, since held requests have them locked.
    """

    since: float
    until: float | None
    pages_left: bool

    def seconds_left(self) -> float | None:
        """Return the seconds until it ends automatically; None: no limit."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())


class Freezer:
    """Freezes and thaws one mount; after `allow` was called."""

    def __init__(self, engine: Engine, overlay: "Overlay", mountpoint: bytes) -> None:
        self._engine = engine
        self._overlay = overlay
        self._shown = shown(mountpoint)
        self._mount: LiveMount | None = None
        self._freezing: trio.CancelScope | None = None
        self._frozen = trio.Event()
        self._ended = ""  # why the last freeze ended, if not by `thaw`
        self.current: Freeze | None = None

    @property
    def holds(self) -> bool:
        """Whether the mount is frozen, or a freeze has begun."""
        return self.current is not None or self._freezing is not None

    def allow(self, mount: LiveMount) -> None:
        """Allow freezes: the mount is ready."""
        self._mount = mount

    async def freeze(self, timeout: float | None) -> Freeze:
        """Freeze for at most `timeout` seconds; MountError when it fails, and the mount is not frozen
        then.
        """
        mount = self._ready_mount()
        if self.holds:
            raise MountError(f"{self._shown} is already frozen")
        self._ended = "requests in progress do not end"
        with trio.move_on_after(_END_SECONDS) as self._freezing:
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
        raise MountError(f"freezing {self._shown} failed: {self._ended}")

    def thaw(self) -> float:
        """Thaw; return for how many seconds changes were held. MountError when the mount is not frozen."""
        frozen = self.current
        if frozen is None:
            raise MountError(f"{self._shown} is not frozen" + (f": {self._ended}" if self._ended else ""))
        self._ended = ""
        self.current = None
        self._engine.thaw()
        return time.monotonic() - frozen.since

    def release(self, frozen: Freeze) -> None:
        """Thaw if exactly this freeze is still in force: the connection that held it has closed."""
        if self.current is frozen:
            log.info("%s: thawed, as the connection that held the freeze has closed", self._shown)
            self.end("the connection that held it has closed")

    def end(self, reason: str) -> None:
        """Thaw, or cancel a freeze that has begun; idempotent."""
        if self.holds:
            self._ended = reason
        if self._freezing is not None:
            self._freezing.cancel()
        if self.current is not None:
            self.current = None
            self._engine.thaw()

    def stop(self) -> None:
        """Thaw, and refuse further freezes: the mount ends."""
        self._mount = None
        self.end("it is being unmounted")

    async def watch(self) -> None:
        """End freezes whose time is up or whose mount was unmounted; runs until cancelled."""
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
        """Make all changes durable; return the seconds that it took. MountError when it fails or is not
        allowed.
        """
        start = time.monotonic()
        mount = self._ready_mount()
        if self.holds:
            raise MountError(f"{self._shown} is frozen: thaw it first")
        if self._overlay.options.volatile:
            raise MountError(f"{self._shown} is volatile: sync has no effect on it")
        try:
            async with WriteBack(self._engine, mount.mountpoint) as pages:
                await pages.write()
            await trio.to_thread.run_sync(self._overlay.sync)
        except OSError as error:
            raise MountError(f"sync of {self._shown} failed: {error.strerror}") from error
        return time.monotonic() - start

    def _ready_mount(self) -> LiveMount:
        if self._mount is None:
            raise MountError(f"{self._shown} is not ready yet, or is being unmounted")
        return self._mount

    async def _hold(self, mount: LiveMount) -> tuple[float, bool]:
        """Hold changes; return since when, and whether changed pages are left.

        Everything is written twice, so that little is left to write while writers wait. The second time needs
        an engine that distinguishes write-back of pages from new writes, so that it holds only the latter.
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
