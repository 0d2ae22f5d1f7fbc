"""The worker processes of a parallel run (pytest-xdist): what each has for itself, and how they end.

Each has its own mount table. A test that clones one would otherwise hold the mounts of other workers' tests,
whose daemons could not end; and no test sees mounts but its own worker's.
"""

import fcntl
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from tests import rawcalls

HERE = Path(__file__).resolve().parent
END_SECONDS, INTERRUPT_EVERY = 120, 20

# Where tests mount, and what.
_PLACES = (tempfile.gettempdir(), "/var/tmp", "/dev/shm")
_KINDS = {b"overlay", b"ext4", b"tmpfs"}


# Tests that one worker does one after the other: they share what starts slowly, or one place of the machine.
_TOGETHER = (
    r"tests/packaging/test_service_unit\.py::Test(UnderSystemd|MountEight)",  # a booted machine
    r"tests/packaging/test_install\.py",  # an installation
    r"tests/packaging/test_dist\.py",  # a wheel
    r"tests/layerstore/test_docker\.py",  # a dockerd
    # the command in /usr/local/bin
    r"tests/service/test_remount\.py::test_(mount_8|source|fstab)|tests/test_cli\.py::test_mount_8$",
)


class Overseer:
    """A plugin of the process that starts the workers."""

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> object:
        """Hands out each test, and those of a row of _TOGETHER as one.

        pytest-xdist's own way to say so, --dist loadgroup, does nothing with pytest 9.2.
        """
        from xdist.scheduler import LoadScopeScheduling

        class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
            def _split_scope(self, nodeid: str) -> str:
                return next((row for row in _TOGETHER if re.match(row, nodeid)), nodeid)

        return Scheduling(config, log)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        _end_workers()


def is_worker() -> bool:
    """Whether this process is one of several that run tests."""
    return "PYTEST_XDIST_WORKER" in os.environ


def take_own_mounts() -> None:
    """Unshare the mount table, and leave out what tests of other runs have mounted just now."""
    rawcalls.unshare_mounts()
    below = tuple(os.fsencode(os.path.realpath(place)) + b"/" for place in _PLACES)
    for point, kind in reversed(rawcalls.mounts()):
        is_a_tests = point.startswith(below) and (kind in _KINDS or kind.startswith(b"fuse."))
        if is_a_tests and not os.fsencode(HERE).startswith(point + b"/"):
            rawcalls.umount(point, rawcalls.MNT_DETACH)


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Within, other workers run only tests that are not `alone` either; with `alone`, none."""
    lock = os.open(HERE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # not by closing: a child of the test may have it, too
        os.close(lock)


def take_interrupts() -> None:
    """SIGINT and SIGTERM interrupt a worker's test; two at a time, as by Ctrl-C, do so once."""
    last = -float(INTERRUPT_EVERY)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > INTERRUPT_EVERY / 2:
            last = time.monotonic()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def ignore_interrupts() -> None:
    """A worker that is cleaning up is not disturbed again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """Interrupt the workers; return when they have ended what they started.

    pytest-xdist gives them ten seconds to go, and says so only after five. An interrupt can be lost where
    Python ignores exceptions (in a finaliser), so it is repeated.
    """
    workers = _children(os.getpid())
    for _ in range(END_SECONDS // INTERRUPT_EVERY):
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        pause = time.monotonic() + INTERRUPT_EVERY
        while time.monotonic() < pause:
            if not any(map(_children, workers)):
                return
            time.sleep(0.05)


def _children(pid: int) -> list[int]:
    """Processes started by any thread of `pid`."""
    with suppress(OSError):
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(child) for text in lists for child in text.split()]
    return []
