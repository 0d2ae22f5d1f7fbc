"""The background start: the command returns when the mount answers, or with one line that says what
failed.
"""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from overlayfs_py.errors import MountError
from overlayfs_py.service.log import log_to_stderr, log_to_syslog
from overlayfs_py.service.report import FdReport, wait_for_report

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_in_background(run: Callable[[FdReport], int]) -> None:
    """Run the daemon (`run`) in a child with its own session; return when it reports that it is ready.

    Otherwise raise MountError with the daemon's message; the child has ended then. In the child this function
    does not return. Inherited descriptors stay open in the child until it is ready: so a lock (flock) among
    them is held until there is a mount or no daemon, even if this process is killed.
    """
    ours, theirs = os.pipe()
    # An interruption between fork(2) and the wait would leave a child that no process knows of.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    # Under nohup(1) SIGHUP stays ignored; Python's handler of SIGINT raises anyway.
    deadly = [number for number in _INTERRUPTS if signal.getsignal(number) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, _terminated)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for number in deadly:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(ours)
            os.setsid()
            os.chdir("/")
            given = _open_descriptors() - {0, 1, 2, theirs}
            log_to_stderr(debug=False, journal=False)
            status = run(FdReport(theirs, lambda: _leave_the_caller(given)))
        finally:
            os._exit(status)
    os.close(theirs)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        wait_for_report(ours, lambda: os.waitpid(pid, 0)[1])
        # The start has succeeded: it is too late to interrupt it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    except MountError:
        _reap(pid)
        raise
    except BaseException:  # interrupted: end the daemon, since the caller gets no report
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        os.kill(pid, signal.SIGTERM)
        _reap(pid)
        raise
    finally:
        os.close(ours)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _open_descriptors() -> set[int]:
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the listing itself, which is closed
            os.fstat(fd)
            found.add(fd)
    return found


def _leave_the_caller(given: Iterable[int]) -> None:
    """Close everything whose end of file the caller may wait for, and log to the system log from now on."""
    log_to_syslog()
    for fd in given:
        os.close(fd)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # reaped already
        pass
