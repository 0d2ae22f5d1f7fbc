"""The worker processes of a parallel run (pytest-xdist): what each has for itself, and how they end.

Each has its own mount table. A test that clones one would otherwise hold the mounts of other workers' tests,
whose daemons could not end; and no test sees mounts but its own worker's.
"""

import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import rawcalls

HERE = Path(__file__).resolve().parent
END_SECONDS, INTERRUPT_EVERY = 120, 20

# Where tests mount, and what.
_PLACES = (tempfile.gettempdir(), "/var/tmp", "/dev/shm")
_KINDS = {b"overlay", b"ext4", b"tmpfs"}


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


def ignore_interrupts() -> None:
    """A worker that is cleaning up is not disturbed again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """In the process that started them: interrupt the workers; return when they have ended what they started.

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
