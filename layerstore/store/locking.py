"""Advisory locks on directories, and temporary names that a dead process does not keep.

A lock is flock(2) on a directory of the store itself, so nothing extra lies in the store and a
killed process leaves no lock behind. A process locks its temporary files and directories while it works on
them: one without a lock is a leftover and may be removed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMP_PREFIX = ".tmp-"


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Wait for a lock on a directory or a file, and hold it. It excludes threads and processes alike.

    Yields the descriptor that has it. A child that inherits it holds the lock, too, until both have closed
    it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def try_locked(directory: Path) -> Iterator[bool]:
    """As `locked`, exclusive, without waiting: yields whether the lock was free."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _flock_now(fd)
    finally:
        os.close(fd)


def temp_name() -> str:
    """Return a name that no finished object of the store's directories has."""
    return TEMP_PREFIX + os.urandom(8).hex()


def hold(fd: int) -> None:
    """Mark a new temporary as in use until `fd` is closed. Call under a lock on the store's root."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def leftovers(directory: Path) -> Iterator[Path]:
    """Return temporaries of this directory whose processes are gone. Call under the exclusive lock on the
    root.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(TEMP_PREFIX)]
    for name in names:
        path = directory / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:  # a symbolic link, or closed: not in use
            yield path
            continue
        try:
            if _flock_now(fd):
                yield path
        finally:
            os.close(fd)


def _flock_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
