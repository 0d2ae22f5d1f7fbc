"""Waiting for the daemon of a mount to end: only then is everything it had to write in the upper."""

import os
import select
from pathlib import Path

from layerstore.errors import LayerstoreError

_STOP_SECONDS = 120


def find(mountpoint: Path) -> list[int]:
    """Descriptors (pidfds, owned by the caller) of the daemons started for this mount point.

    `overlay.mount` started them with the mount point as their last argument, which the process table shows.
    """
    wanted = os.fsencode(mountpoint)
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or not _serves(int(entry), wanted):
            continue
        try:
            pidfd = os.pidfd_open(int(entry))
        except ProcessLookupError:
            continue
        if _serves(int(entry), wanted):  # the number has not come to mean another process meanwhile
            found.append(pidfd)
        else:
            os.close(pidfd)
    return found


def wait_gone(pidfds: list[int], mountpoint: Path, *, seconds: float = _STOP_SECONDS) -> None:
    """Wait until these processes have ended, and close the descriptors."""
    try:
        for pidfd in pidfds:
            ended, _, _ = select.select([pidfd], [], [], seconds)
            if not ended:
                raise LayerstoreError(
                    f"{mountpoint} is unmounted, but its daemon is still busy after {seconds:g} s"
                )
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _serves(pid: int, mountpoint: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    return len(words) > 3 and words[-1] == mountpoint and b"overlayfs_py" in words[1:4]
