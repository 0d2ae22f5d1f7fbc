"""A fresh ext4 image per contender and round, copied from one template, and its tear-down.

ext4 avoids the inodes of files deleted in the last minutes, so a file system on which something
was deleted is several times slower to create files on: nothing here is used twice. The template is
filled once, so that all contenders find the very same layers, block for block.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scale import FILES

IMAGE_BYTES = 6 << 30
INODES = max(400_000, 16 * FILES)
BYTES_PER_INODE = (
    8192  # of images with more of them: a block of content, and what directories and journal take
)


@dataclass(frozen=True)
class Stage:
    """The directories of one overlay: names below `disk`, short enough for 500 layers in one mount option."""

    disk: Path
    mountpoint: Path
    lowers: tuple[str, ...] = ("lower",)
    upper: str = "upper"
    work: str = "work"

    @property
    def lower(self) -> Path:
        """The topmost lower layer."""
        return self.disk / self.lowers[0]

    @contextmanager
    def beside(self, name: str, lowers: tuple[str, ...] = ()) -> Iterator["Stage"]:
        """The same layers (or others of the disk) for a mount with an upper and a mount point of its own."""
        place = Stage(
            self.disk,
            self.mountpoint.with_name(f"merged-{name}"),
            lowers or self.lowers,
            upper=f"upper-{name}",
            work=f"work-{name}",
        )
        for path in (place.mountpoint, place.disk / place.upper, place.disk / place.work):
            path.mkdir()
        try:
            yield place
        finally:
            place.mountpoint.rmdir()


def sh(*command: str | Path, cwd: Path | None = None) -> None:
    """Run `command`; its output shows only when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
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
def mounted_image(image: Path, disk: Path) -> Iterator[Path]:
    """`image` mounted at the directory `disk`, which is made and removed."""
    disk.mkdir()
    try:
        sh("mount", "-o", "loop", image, disk)
        try:
            yield disk
        finally:
            unmount(disk)
    finally:
        disk.rmdir()


def make_template(base: Path, fill: Callable[[Path], None], inodes: int = INODES) -> Path:
    """A file system image below `base` with `lower`, `upper` and `work`; `fill` gets the lower's parent."""
    image = base / "template"
    with image.open("wb") as file:
        file.truncate(max(IMAGE_BYTES, inodes * BYTES_PER_INODE))
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    sh("mkfs.ext4", "-q", "-N", str(inodes), "-E", eager, image)
    with mounted_image(image, base / "disk") as disk:
        for name in ("lower", "upper", "work"):
            (disk / name).mkdir()
        fill(disk)
    return image


@contextmanager
def fresh_stage(base: Path, template: Path) -> Iterator[Stage]:
    """A copy of `template` mounted below `base`, warm in the page cache; removed at the end."""
    image, mountpoint = base / "image", base / "merged"
    mountpoint.mkdir()
    try:
        sh("cp", "--sparse=auto", template, image)
        with mounted_image(image, base / "disk") as disk:
            warm(disk)
            settle()
            yield Stage(disk, mountpoint)
    finally:
        image.unlink(missing_ok=True)
        mountpoint.rmdir()


def warm(top: Path) -> None:
    """Stat and read everything below `top` once: the overlay is measured, not the disk."""
    command = ["find", str(top), "-type", "f", "-size", "+0", "-exec", "cat", "{}", "+"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def settle() -> None:
    """Write back everything dirty, so that nothing is written back while a clock runs."""
    os.sync()
    time.sleep(0.3)
