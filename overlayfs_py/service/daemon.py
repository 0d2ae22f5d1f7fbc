"""The daemon: one trio nursery with engine, control socket, signals, readiness and watchdog.

At the end the mount is unmounted first (so that no new request comes), then the requests in progress are
answered, the upper is synced, and the layers are released. Whatever happens, nothing stays mounted.
"""

import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from overlayfs_py.engine import Engine
from overlayfs_py.errors import MountError, shown
from overlayfs_py.options import Options
from overlayfs_py.service.companions import detach_when_alone
from overlayfs_py.service.control import ControlSocket, Verb
from overlayfs_py.service.freezing import Freezer
from overlayfs_py.service.keepers import describe, keepers
from overlayfs_py.service.mountpoint import LiveMount
from overlayfs_py.service.notify import Notifier
from overlayfs_py.syscalls.mount import mount_fuse, unmount

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

log = logging.getLogger("overlayfs_py")

_START_TIMEOUT = 60.0
# Reference counts free the nodes; a search for cycles among 100,000 of them doubles a lookup (benchmarks:
# first stat).
_GARBAGE_THRESHOLDS = (50_000, 20, 50)
# Seconds for which a mount that is in use at the stop signal is still served, detached.
_LINGER = 5.0
# Seconds that a forced end waits for unwritten data.
_LAST_WRITES = 5.0


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop the daemon: SIGHUP too, unless nohup(1) or the like made it ignored."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
    return [signal.SIGTERM, signal.SIGINT, *hangup]


class Daemon:
    """One mount being served. The engine and the overlay belong to the caller.

    `verbs` makes the verb table of the control socket; `announced` is called once the mount answers.
    """

    def __init__(
        self,
        options: Options,
        overlay: "Overlay",
        engine: Engine,
        verbs: Callable[["Daemon"], dict[str, Verb]],
        announced: Callable[[], None],
    ) -> None:
        self.options = options
        self.overlay = overlay
        self.engine = engine
        self.started = time.time()
        self.mount: LiveMount | None = None
        self._verbs = verbs
        self._announced = announced
        self._notifier = Notifier(enabled=options.service.notify, watchdog=options.service.watchdog)
        self._stopping = trio.Event()
        self.freezer = Freezer(engine, overlay, options.mount.mountpoint)
        overlay.spare_access_times(options.mount.noatime or options.mount.read_only)

    async def run(self, parent_fd: int | None = None) -> None:
        """Mount, serve, and leave nothing mounted; MountError when mounting fails."""
        with trio.open_signal_receiver(*_stop_signals()) as signals:  # before there is a mount
            fuse_fd = mount_fuse(self.options.mount)
            self.mount = mount = LiveMount(self.options.mount.mountpoint)
            try:
                self.engine.attach(fuse_fd)
                await self._serve(mount, signals, parent_fd)
            finally:
                mount.leave_nothing()
        self.engine.close()  # others see that the daemon has no connection any more: it only writes now
        if self.must_sync:
            await trio.to_thread.run_sync(self.overlay.sync)

    async def unmount(self, *, lazy: bool = False) -> None:
        """Unmount, which ends the engine; MountError when the mount is busy and not `lazy`.

        This thaws the mount first, since waiting requests keep it busy.
        """
        self.freezer.end("it is being unmounted")
        await trio.to_thread.run_sync(_unmount, self.options.mount.mountpoint, lazy)

    async def abort(self) -> None:
        """Detach the mount and end the engine, even if it is in use or mounted elsewhere: users get errors.

        Unwritten data is written first, if that does not take long.
        """
        if self.mount is not None and self.mount.is_there():
            with trio.move_on_after(_LAST_WRITES), suppress(MountError):
                await self.freezer.sync()
        with suppress(MountError):  # it may be unmounted already
            await self.unmount(lazy=True)
        self.engine.stop()

    @property
    def must_sync(self) -> bool:
        """Whether the upper must be synced: a mount that is read-only now may have been writable before."""
        return not (self.options.union.volatile or self.overlay.read_only)

    async def _serve(self, mount: LiveMount, signals: AsyncIterable[int], parent_fd: int | None) -> None:
        control = self._open_control()
        try:
            async with trio.open_nursery() as nursery:
                if control is not None:
                    nursery.start_soon(control.serve)
                nursery.start_soon(self._watch_signals, signals)
                if parent_fd is not None:
                    nursery.start_soon(self._watch_parent, parent_fd)
                nursery.start_soon(self._stop_on_request)
                nursery.start_soon(self.freezer.watch)
                nursery.start_soon(self._announce, mount)
                nursery.start_soon(detach_when_alone, mount)
                await self.engine.serve()
                self.freezer.stop()
                self._notifier.stopping("unmounted")
                nursery.cancel_scope.cancel()
        finally:
            if control is not None:
                control.close()

    def _open_control(self) -> ControlSocket | None:
        service = self.options.service
        if service.run_dir is None:
            return None
        try:
            return ControlSocket(service.run_dir, self.options.mount.mountpoint, self._verbs(self))
        except OSError as error:
            log.warning("no control socket: %s: %s", shown(service.run_dir), error.strerror)
            return None

    async def _announce(self, mount: LiveMount) -> None:
        """Report readiness once the mount answers another process; then ping the watchdog."""
        with trio.move_on_after(_START_TIMEOUT) as waiting:
            await mount.check_answers()
        if waiting.cancelled_caught:
            raise MountError(f"the mount did not answer within {_START_TIMEOUT:.0f} s")
        gc.freeze()  # objects made so far live as long as the daemon
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        gc.enable()
        self.freezer.allow(mount)
        self._announced()
        self._notifier.ready(f"serving {os.fsdecode(mount.mountpoint)}")

        async def answers() -> bool:
            try:
                await mount.check_answers()
            except OSError:
                return False
            return True

        await self._notifier.ping_while(answers)

    async def _watch_signals(self, signals: AsyncIterable[int]) -> None:
        async for number in signals:
            if self._stopping.is_set():  # a second signal: stop at once
                self.engine.stop()
            log.info("%s: unmounting", signal.Signals(number).name)
            self._stopping.set()

    async def _watch_parent(self, parent_fd: int) -> None:
        await trio.lowlevel.wait_readable(parent_fd)
        self._stopping.set()

    async def _stop_on_request(self) -> None:
        await self._stopping.wait()
        self.freezer.stop()
        self._notifier.stopping("unmounting")
        try:
            await self.unmount()
            await self._stop_when_in_use()
        except MountError as error:
            log.warning("%s; detaching it", error)
            try:
                await self.unmount(lazy=True)
            except MountError as reason:
                log.warning("%s", reason)
            await trio.sleep(_LINGER)
        self.engine.stop()

    async def _stop_when_in_use(self) -> None:
        """Return when another process still uses the unmounted file system.

        Otherwise the kernel is still writing, and the engine ends afterwards: that cancels this task.
        """
        connection = self.mount.connection if self.mount is not None else -1
        while True:
            await trio.sleep(_LINGER)
            if found := await trio.to_thread.run_sync(partial(keepers, connection, besides=[os.getpid()])):
                log.warning(
                    "%s: stopping while still in use by %s",
                    shown(self.options.mount.mountpoint),
                    describe(found),
                )
                return


def _unmount(mountpoint: bytes, lazy: bool) -> None:
    unmount(mountpoint, lazy=lazy)
