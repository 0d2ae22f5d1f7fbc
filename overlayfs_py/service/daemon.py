"""The daemon: one trio nursery with engine, control socket, signals, readiness and watchdog.

Order of the end: unmounted first (so no new request comes), then the requests under way are answered,
then the upper is synced, then the layers are released. Whatever happens, nothing stays mounted.
"""

import gc
import logging
import os
import resource
import signal
import time
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

import trio

from overlayfs_py.engine import Engine, open_engine
from overlayfs_py.errors import MountError, OverlayError
from overlayfs_py.options import Options
from overlayfs_py.service.control import ControlSocket
from overlayfs_py.service.freezing import Freezer
from overlayfs_py.service.mountpoint import LiveMount, make_way
from overlayfs_py.service.notify import Notifier
from overlayfs_py.service.report import Report
from overlayfs_py.service.verbs import verbs_of
from overlayfs_py.syscalls.mount import mount_fuse, unmount

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Overlay

log = logging.getLogger("overlayfs_py")

_START_TIMEOUT = 60.0
# Nodes are freed by their counts; looking for cycles among 100,000 of them doubles a lookup (first stat).
_GARBAGE_THRESHOLDS = (50_000, 20, 50)
# How long a mount that is still in use when the daemon is told to stop goes on being served, detached.
_LINGER = 5.0


def run_daemon(options: Options, report: Report, parent_fd: int | None = None) -> int:
    """Mount and serve until unmounted; the exit status: 1 when nothing was mounted, EX_SOFTWARE when
    serving failed later, which a service manager may try again. `report` is told once, ready or failed.

    `parent_fd`: the daemon stops when the other end is closed.
    """
    told = _Once(report)
    try:
        _prepare_process()
        make_way(options.mount)
        return _open_and_serve(options, told, parent_fd)
    except Exception as error:
        served = told.done
        told.failed(_one_line(error))
        return os.EX_SOFTWARE if served else 1


def _one_line(error: BaseException) -> str:
    """What to tell the user: the daemon's own sentences as they are, anything else named for what it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OverlayError):
        return str(error)
    log.debug("the daemon failed", exc_info=error)
    if isinstance(error, OSError) and error.strerror:
        return f"{_shown(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return f"internal error: {type(error).__name__}: {error}"


def _shown(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


def _open_and_serve(options: Options, report: "_Once", parent_fd: int | None) -> int:
    from overlayfs_py.union.overlay import Overlay

    overlay = Overlay.open(options.union)
    try:
        engine = open_engine(overlay, options.service)
        try:
            daemon = Daemon(options, overlay, engine, report)
            trio.run(daemon.run, parent_fd, restrict_keyboard_interrupt_to_checkpoints=True)
        finally:
            engine.close()
    finally:
        overlay.close()
    return 0


def _prepare_process() -> None:
    """Modes come from requests, not from whoever started us; and layers need many descriptors."""
    os.umask(0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop_signals() -> list[signal.Signals]:
    """SIGHUP, the end of a terminal, counts unless nohup(1) or the like made it ignored."""
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
    return [signal.SIGTERM, signal.SIGINT, *hangup]


class _Once:
    """A report that is told one outcome: a failure after readiness belongs in the log."""

    def __init__(self, report: Report) -> None:
        self._report: Report | None = report

    @property
    def done(self) -> bool:
        return self._report is None

    def ready(self) -> None:
        if self._report is not None:
            self._report.ready()
            self._report = None

    def failed(self, message: str) -> None:
        if self._report is None:
            log.error("%s", message)
        else:
            self._report.failed(message)
            self._report = None


class Daemon:
    """One mount being served. The engine and the overlay belong to the caller."""

    def __init__(self, options: Options, overlay: "Overlay", engine: Engine, report: _Once) -> None:
        self.options = options
        self.overlay = overlay
        self.engine = engine
        self.started = time.time()
        self._report = report
        self._notifier = Notifier(enabled=options.service.notify, watchdog=options.service.watchdog)
        self._stopping = trio.Event()
        self.freezer = Freezer(engine, overlay, options.mount.mountpoint)

    async def run(self, parent_fd: int | None = None) -> None:
        """Mount, serve, and leave nothing mounted; MountError when the mount cannot be made."""
        with trio.open_signal_receiver(*_stop_signals()) as signals:  # before there is a mount
            fuse_fd = mount_fuse(self.options.mount)
            mount = LiveMount(self.options.mount.mountpoint)
            try:
                self.engine.attach(fuse_fd)
                await self._serve(mount, signals, parent_fd)
            finally:
                mount.leave_nothing()
        if self._must_sync():
            await trio.to_thread.run_sync(self.overlay.sync)

    async def unmount(self, *, lazy: bool = False) -> None:
        """Unmount, which makes the engine end; MountError when the mount is busy and not `lazy`.

        It is thawed first: who waits keeps it busy.
        """
        self.freezer.end("it is being unmounted")
        await trio.to_thread.run_sync(_unmount, self.options.mount.mountpoint, lazy)

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
            return ControlSocket(service.run_dir, self.options.mount.mountpoint, verbs_of(self))
        except OSError as error:
            log.warning("no control socket: %s: %s", os.fsdecode(service.run_dir), error.strerror)
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
        self._report.ready()
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
        except MountError as error:
            log.warning("%s; detaching it", error)
            try:
                await self.unmount(lazy=True)
            except MountError as reason:
                log.warning("%s", reason)
            await trio.sleep(_LINGER)
            self.engine.stop()

    def _must_sync(self) -> bool:
        return not (self.options.union.volatile or self.options.mount.read_only or self.overlay.read_only)


def _unmount(mountpoint: bytes, lazy: bool) -> None:
    unmount(mountpoint, lazy=lazy)
