"""The daemon's process, from options to exit status: open the overlay and the engine, report the outcome."""

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

_DESCRIPTORS = 1 << 14  # as many as `union/descriptors.py` keeps open; each takes 8 bytes of kernel memory


def run_daemon(options: Options, report: StartReport, parent_fd: int | None = None) -> int:
    """Mount and serve until unmounted; return the exit status.

    1: nothing was mounted; EX_SOFTWARE: serving failed later, so that a service manager may try again.
    `report` gets one outcome, ready or failed. `parent_fd`: the daemon stops when the other end is closed.
    """
    outcome = _Once(report)
    try:
        _prepare_process()
        make_way(options.mount)
        return _open_and_serve(options, outcome, parent_fd)
    except Exception as error:
        served = outcome.done
        outcome.failed(_one_line(error))
        return os.EX_SOFTWARE if served else 1


def _one_line(error: BaseException) -> str:
    """Return the message for the user: our own errors as they are, others with their kind."""
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
            "the file system of the upper does not support RENAME_EXCHANGE: renames take several steps; "
            "after a crash mount the overlay again before another program reads the upper"
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
    """Clear the umask, since modes come from requests, and raise the limit of descriptors for the layers."""
    os.umask(0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _make_room(_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS))


def _make_room(descriptors: int) -> None:
    """Grow the descriptor table once, while the process has one thread.

    With more threads the kernel waits for all processors each time that the table doubles, 10 ms and more
    (fs/file.c expand_fdtable: synchronize_rcu).
    """
    fd = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, descriptors - 1))
    finally:
        os.close(fd)


class _Once:
    """Passes only the first outcome to a report; a failure after readiness goes to the log."""

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
