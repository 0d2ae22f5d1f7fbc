"""Waiting for the daemon of a mount to end: only then is everything it had to write in the upper."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.errors import LayerstoreError

_STOP_SECONDS = 120


@contextmanager
def serving(mountpoint: Path) -> Iterator[list[int]]:
    """The daemons started for this mount point, as pidfds that are closed at the end.

    `overlay.mount` started them with the mount point as their last argument, which the process table shows.
    """
    found: list[int] = []
    try:
        for pid in _pids_serving(mountpoint):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            found.append(pidfd)
        yield found
    finally:
        for pidfd in found:
            os.close(pidfd)


def wait_gone(pidfds: list[int], mountpoint: Path, *, seconds: float = _STOP_SECONDS) -> None:
    """Wait until these processes have ended."""
    for pidfd in pidfds:
        ended, _, _ = select.select([pidfd], [], [], seconds)
        if not ended:
            raise LayerstoreError(
                f"{mountpoint} is unmounted, but its daemon is still busy after {seconds:g} s"
            )


def _pids_serving(mountpoint: Path) -> Iterator[int]:
    wanted = os.fsencode(mountpoint)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _serves(int(entry), wanted):
            yield int(entry)


def _serves(pid: int, mountpoint: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    return len(words) > 3 and words[-1] == mountpoint and b"overlayfs_py" in words[1:4]
