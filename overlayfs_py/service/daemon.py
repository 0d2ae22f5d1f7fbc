"""The daemon: one trio nursery with engine, control socket, signals, readiness and watchdog.

Order of the end: unmounted first (so no new request comes), then the requests under way are answered,
then the upper is synced, then the layers are released. Whatever happens, nothing stays mounted.
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
from overlayfs_py.service.keepers import keepers, said
from overlayfs_py.service.mountpoint import LiveMount
from overlayfs_py.service.notify import Notifier
from overlayfs_py.syscalls.mount import mount_fuse, unmount

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

log = logging.getLogger("overlayfs_py")

_START_TIMEOUT = 60.0
# Nodes are freed by their counts; looking for cycles among 100,000 of them doubles a lookup (first stat).
_GARBAGE_THRESHOLDS = (50_000, 20, 50)
# How long a mount that is still in use when the daemon is told to stop goes on being served, detached.
_LINGER = 5.0
# How long a forced end waits for what is still to be written.
_LAST_WRITES = 5.0


def _stop_signals() -> list[signal.Signals]:
    """SIGHUP, the end of a terminal, counts unless nohup(1) or the like made it ignored."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
    return [signal.SIGTERM, signal.SIGINT, *hangup]


class Daemon:
    """One mount being served. The engine and the overlay belong to the caller.

    `verbs`: what it can be asked over the control socket; `announced` is called once the mount answers.
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
        """Mount, serve, and leave nothing mounted; MountError when the mount cannot be made."""
        with trio.open_signal_receiver(*_stop_signals()) as signals:  # before there is a mount
            fuse_fd = mount_fuse(self.options.mount)
            self.mount = mount = LiveMount(self.options.mount.mountpoint)
            try:
                self.engine.attach(fuse_fd)
                await self._serve(mount, signals, parent_fd)
            finally:
                mount.leave_nothing()
        self.engine.close()  # whoever looks for the daemon's connection finds none: it is only writing now
        if self.must_sync:
            await trio.to_thread.run_sync(self.overlay.sync)

    async def unmount(self, *, lazy: bool = False) -> None:
        """Unmount, which makes the engine end; MountError when the mount is busy and not `lazy`.

        It is thawed first: who waits keeps it busy.
        """
        self.freezer.end("it is being unmounted")
        await trio.to_thread.run_sync(_unmount, self.options.mount.mountpoint, lazy)

    async def abort(self) -> None:
        """Detach the mount, wherever else it may be mounted, and end the engine: who uses it gets errors.

        What the kernel has not handed over yet is written first, where that can be done at once.
        """
        if self.mount is not None and self.mount.is_there():
            with trio.move_on_after(_LAST_WRITES), suppress(MountError):
                await self.freezer.sync()
        with suppress(MountError):  # it may have gone from here already
            await self.unmount(lazy=True)
        self.engine.stop()

    @property
    def must_sync(self) -> bool:
        """Whether what was written has to be made durable. A mount that is read-only now may not always have
        been.
        """
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
                nursery.start_soon(self._stop_when_told)
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
        """Ready when the mount answers somebody who is not the loop that serves it; then signs of life."""
        with trio.move_on_after(_START_TIMEOUT) as waiting:
            await mount.check_answers()
        if waiting.cancelled_caught:
            raise MountError(f"the mount did not answer within {_START_TIMEOUT:.0f} s")
        gc.freeze()  # what a start makes stays
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
            if self._stopping.is_set():  # a second one: somebody is in a hurry
                self.engine.stop()
            log.info("%s: unmounting", signal.Signals(number).name)
            self._stopping.set()

    async def _watch_parent(self, parent_fd: int) -> None:
        await trio.lowlevel.wait_readable(parent_fd)
        self._stopping.set()

    async def _stop_when_told(self) -> None:
        await self._stopping.wait()
        self.freezer.stop()
        self._notifier.stopping("unmounting")
        try:
            await self.unmount()
            await self._stop_when_kept()
        except MountError as error:
            log.warning("%s; detaching it", error)
            try:
                await self.unmount(lazy=True)
            except MountError as reason:
                log.warning("%s", reason)
            await trio.sleep(_LINGER)
        self.engine.stop()

    async def _stop_when_kept(self) -> None:
        """Return when somebody keeps what is unmounted here. Otherwise the kernel is still writing, and ends
        it: this is cancelled then.
        """
        connection = self.mount.connection if self.mount is not None else -1
        while True:
            await trio.sleep(_LINGER)
            if found := await trio.to_thread.run_sync(partial(keepers, connection, besides=[os.getpid()])):
                log.warning(
                    "%s: ending, though it is kept by %s", shown(self.options.mount.mountpoint), said(found)
                )
                return


def _unmount(mountpoint: bytes, lazy: bool) -> None:
    unmount(mountpoint, lazy=lazy)
