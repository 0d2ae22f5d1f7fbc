"""The daemon's process, from options to an exit status: what is opened for it, and who is told of it."""

import fcntl
import logging
import os
import resource

import trio

from overlayfs_py.engine import open_engine
from overlayfs_py.errors import InUse, OverlayError, shown
from overlayfs_py.options import Options
from overlayfs_py.service.daemon import Daemon
from overlayfs_py.service.mountpoint import make_way
from overlayfs_py.service.report import StartReport
from overlayfs_py.service.verbs import verbs_of

log = logging.getLogger("overlayfs_py")

_DESCRIPTORS = 1 << 14  # as many as are kept open (`union/descriptors.py`); 8 bytes of the kernel's each


def run_daemon(options: Options, report: StartReport, parent_fd: int | None = None) -> int:
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
        where = shown(error.filename) if isinstance(error.filename, bytes) else error.filename
        return f"{where}: {error.strerror}" if where else error.strerror
    return f"internal error: {type(error).__name__}: {error}"


def _open_and_serve(options: Options, report: "_Once", parent_fd: int | None) -> int:
    from overlayfs_py.union.overlay import Overlay

    try:
        overlay = Overlay.open(options.union)
    except InUse:
        from overlayfs_py.service.taking import open_when_free

        overlay = open_when_free(lambda: Overlay.open(options.union), options.service.run_dir)
    if not (overlay.read_only or overlay.capabilities.exchange):
        log.warning(
            "the file system of the upper exchanges no names (RENAME_EXCHANGE): renames take several steps; "
            "after a crash mount it again before anything else reads it"
        )
    try:
        engine = open_engine(overlay, options.service)
        try:
            daemon = Daemon(options, overlay, engine, verbs_of, report.ready)
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
    _make_room(_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS))


def _make_room(descriptors: int) -> None:
    """Let the table of descriptors grow once, while there is one thread. With more than one the kernel waits
    for all processors each time it doubles (fs/file.c expand_fdtable: synchronize_rcu), 10 ms and more.
    """
    fd = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, descriptors - 1))
    finally:
        os.close(fd)


class _Once:
    """A report that is told one outcome: a failure after readiness belongs in the log."""

    def __init__(self, report: StartReport) -> None:
        self._report: StartReport | None = report

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
