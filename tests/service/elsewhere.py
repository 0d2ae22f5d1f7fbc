"""Processes in mount namespaces of their own, for what they keep there."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def copied_elsewhere() -> Iterator[int]:
    """A process whose mount namespace is a private copy of ours as it is now; its pid."""
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield process.pid
        finally:
            process.kill()


def lock_holder(work: Path) -> int | None:
    """Who holds the lock on a work directory, by /proc/locks alone."""
    inode = os.stat(work).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and int(words[5].split(":")[2]) == inode:
            return int(words[4])
    return None
