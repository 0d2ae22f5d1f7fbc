"""File systems in images, mounted by loop devices, for tests of layers on several of them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


def need(*programs: str, kind: str) -> None:
    """Skip the test where a program or the kernel's file system is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    if not any(line.split()[-1] == kind for line in Path("/proc/filesystems").read_text().splitlines()):
        pytest.skip(f"needs {kind} in the kernel")


@contextmanager
def mounted(image: Path, where: Path, *options: str) -> Iterator[Path]:
    """Mount an image at `where`, which is made."""
    where.mkdir(exist_ok=True)
    command = ["mount", "-o", ",".join(("loop", *options)), str(image), str(where)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, timeout=60)


@contextmanager
def btrfs(where: Path) -> Iterator[Path]:
    """A fresh btrfs, mounted below `where`."""
    need("mkfs.btrfs", "btrfs", kind="btrfs")
    image = where / "btrfs.image"
    with image.open("wb") as stream:
        stream.truncate(256 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True, timeout=60)
    with mounted(image, where / "btrfs") as top:
        yield top


def subvolume(path: Path) -> Path:
    """Make a btrfs subvolume."""
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(path)], check=True, timeout=60)
    return path


@contextmanager
def tmpfs(where: Path) -> Iterator[Path]:
    """A fresh tmpfs at `where`; each counts its inodes from the same number."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(where)], check=True, timeout=60)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True, timeout=60)


def device_numbers(*paths: Path) -> set[tuple[int, int]]:
    """(st_dev, st_ino) of each: what a test relies on is asserted with it."""
    return {(st.st_dev, st.st_ino) for st in map(os.lstat, paths)}


_UUID = "01234567-89ab-cdef-0123-456789abcdef"
# How a file system is made from a directory, with the same UUID each time, or with none.
_MAKERS = {
    "squashfs": ["mksquashfs", "TREE", "IMAGE", "-quiet", "-no-progress"],
    "ext4": ["mke2fs", "-q", "-t", "ext4", "-U", _UUID, "-d", "TREE", "IMAGE", "8M"],
    "erofs": ["mkfs.erofs", "-U", _UUID, "IMAGE", "TREE"],
}
KINDS = sorted(_MAKERS)


def build(kind: str, tree: Path, image: Path) -> None:
    """Make an image of a directory: equal UUIDs, and equal inode numbers for trees of one shape."""
    command = [{"TREE": str(tree), "IMAGE": str(image)}.get(word, word) for word in _MAKERS[kind]]
    need(command[0], kind=kind)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
