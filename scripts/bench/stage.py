"""A fresh ext4 image per contender and round, with one lower layer on it, and its tear-down.

ext4 avoids the inodes of files deleted in the last minutes, so a file system on which something
was deleted is several times slower to create files on: nothing here is used twice.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE_BYTES = 6 << 30
INODES = 400_000


@dataclass(frozen=True)
class Stage:
    """The directories of one overlay, all on the image but the mount point."""

    lower: Path
    upper: Path
    work: Path
    mountpoint: Path


def sh(*command: str | Path) -> None:
    """Run `command`; its output shows only when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"bench: {' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}"
        )


def unmount(path: Path) -> None:
    """Unmount `path`, waiting for late users of it; lazily when there is no other way."""
    for _ in range(50):
        done = subprocess.run(["umount", str(path)], capture_output=True, text=True)
        if done.returncode == 0 or "not mounted" in done.stderr:
            return
        time.sleep(0.1)
    subprocess.run(["umount", "-l", str(path)], check=False)


@contextmanager
def fresh_stage(base: Path) -> Iterator[Stage]:
    """A new file system under `base`, removed at the end."""
    image, disk, mountpoint = base / "image", base / "disk", base / "merged"
    disk.mkdir(parents=True)
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    sh("mkfs.ext4", "-q", "-N", str(INODES), "-E", eager, image)
    sh("mount", "-o", "loop", image, disk)
    try:
        stage = Stage(disk / "lower", disk / "upper", disk / "work", mountpoint)
        for directory in (stage.lower, stage.upper, stage.work):
            directory.mkdir()
        yield stage
    finally:
        unmount(disk)
        image.unlink()
        disk.rmdir()
        mountpoint.rmdir()
        base.rmdir()


def settle() -> None:
    """Nothing dirty is left to be written back while a clock runs."""
    os.sync()
    time.sleep(0.3)
