"""What is measured: one row each, with what it needs in the lower layer and what the clock runs over.

A workload has a directory of its own, so none meets what another has looked up, and they run in the
order of the table. Layers are warm in the page cache: the overlay is measured, not the disk.
"""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = b"x" * 2048
MIB = bytes(range(256)) * 4096


def files(directory: Path, count: int, content: bytes = SMALL) -> None:
    """`count` files of `content` in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        fd = os.open(directory / f"file-{number:06d}", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, content)
        os.close(fd)


def big_file(path: Path, mib: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as file:
        for _ in range(mib):
            file.write(MIB)


def names(directory: Path, count: int) -> list[str]:
    """Paths made before the clock runs, without looking into the mount."""
    return [f"{directory}/file-{number:06d}" for number in range(count)]


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def stat_all(paths: list[str]) -> None:
    for path in paths:
        os.stat(path)


def read_all(paths: list[str]) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 65536)
        os.close(fd)


def touch_all(paths: list[str]) -> None:
    """Open each for writing and write one byte: a copy-up for a lower file."""
    for path in paths:
        fd = os.open(path, os.O_WRONLY)
        os.pwrite(fd, b"y", 0)
        os.close(fd)


def create_all(paths: list[str]) -> None:
    for path in paths:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"hello")
        os.close(fd)


def rename_all(paths: list[str]) -> None:
    for path in paths:
        os.rename(path, path + ".new")


def unlink_all(paths: list[str]) -> None:
    for path in paths:
        os.unlink(path)


def mkdir_all(paths: list[str]) -> None:
    for path in paths:
        os.mkdir(path)


def list_and_stat(directory: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def read_big(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)


def write_big(path: Path, mib: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    for _ in range(mib):
        os.write(fd, MIB)
    os.close(fd)


def make_archive(directory: Path, count: int = 3000) -> None:
    """A tar of `count` small files in 60 directories, and the place it is taken apart in."""
    tree = directory / "tree"
    for number in range(60):
        files(tree / f"dir-{number:02d}", count // 60)
    subprocess.run(["tar", "-cf", directory / "archive.tar", "-C", directory, "tree"], check=True)
    (directory / "out").mkdir()


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)


@dataclass(frozen=True)
class Workload:
    """`measure` returns the seconds spent in its directory of the mount; a figure is for one of `count`."""

    name: str
    directory: str
    prepare: Callable[[Path], object] | None  # fills `directory` in the lower; None: an earlier row did
    measure: Callable[[Path], float]
    count: int = 1
    unit: str = "ms"

    def figure(self, seconds: float) -> float:
        """In the row's unit: MB/s is higher-is-better, the others lower."""
        if self.unit == "MB/s":
            return self.count * 1.048576 / seconds
        return seconds / self.count * {"s": 1.0, "ms": 1e3, "µs": 1e6}[self.unit]


def per_file(work: Callable[[list[str]], None], count: int) -> Callable[[Path], float]:
    """Time `work` over `count` names of the directory."""

    def measure(directory: Path) -> float:
        paths = names(directory, count)
        return timed(lambda: work(paths))

    return measure


def row(
    name: str,
    directory: str,
    work: Callable[[list[str]], None],
    count: int,
    prepare: Callable[[Path], object] | None = None,
) -> Workload:
    """A row of per-file microseconds."""
    return Workload(name, directory, prepare, per_file(work, count), count, "µs")


def with_files(count: int, content: bytes = SMALL) -> Callable[[Path], None]:
    return lambda directory: files(directory, count, content)


def with_big(mib: int) -> Callable[[Path], None]:
    return lambda directory: big_file(directory / "big", mib)


WORKLOADS = (
    row("first stat", "stat", stat_all, 5000, with_files(5000)),
    row("repeated stat", "stat", stat_all, 5000),
    row("open+read+close, first", "read", read_all, 2000, with_files(2000)),
    row("open+read+close, repeated", "read", read_all, 2000),
    Workload("list 10,000 entries", "d10k", with_files(10_000, b""), lambda d: timed(lambda: os.listdir(d))),
    Workload("list 10,000 entries, repeated", "d10k", None, lambda d: timed(lambda: os.listdir(d))),
    Workload("list and stat 10,000 entries", "d10k", None, lambda d: timed(lambda: list_and_stat(d))),
    Workload(
        "list 100,000 entries", "d100k", with_files(100_000, b""), lambda d: timed(lambda: os.listdir(d))
    ),
    row("create", "new", create_all, 2000, lambda d: d.mkdir()),
    row("mkdir", "dirs", mkdir_all, 1000, lambda d: d.mkdir()),
    row("rename of a new file", "new", rename_all, 2000),
    row("rename of a lower file", "old", rename_all, 1000, with_files(1000)),
    row("unlink of a lower file", "gone", unlink_all, 2000, with_files(2000)),
    row("copy-up of 1,000 small files", "up", touch_all, 1000, with_files(1000)),
    Workload(
        "copy-up of a 256 MiB file",
        "bigup",
        with_big(256),
        lambda d: timed(lambda: touch_all([f"{d}/big"])),
    ),
    Workload(
        "sequential write, 512 MiB",
        "write",
        lambda d: d.mkdir(),
        lambda d: timed(lambda: write_big(d / "big", 512)),
        512,
        "MB/s",
    ),
    Workload(
        "sequential read, 512 MiB, first",
        "seq",
        with_big(512),
        lambda d: timed(lambda: read_big(d / "big")),
        512,
        "MB/s",
    ),
    Workload(
        "sequential read, 512 MiB, repeated",
        "seq",
        None,
        lambda d: timed(lambda: read_big(d / "big")),
        512,
        "MB/s",
    ),
    Workload(
        "tar -x of 3,000 files",
        "tar",
        make_archive,
        lambda d: timed(lambda: run("tar", "-xf", d / "archive.tar", "-C", d / "out")),
    ),
    Workload("rm -rf of those 3,000", "tar", None, lambda d: timed(lambda: run("rm", "-rf", d / "out/tree"))),
    Workload(
        "rm -rf of 3,000 lower files", "tar", None, lambda d: timed(lambda: run("rm", "-rf", d / "tree"))
    ),
)

KNOWN_INODES = 100_000


def know_inodes(mountpoint: Path) -> None:
    """Look up every file of the 100,000-entry directory and keep nothing else."""
    stat_all(names(mountpoint / "d100k", KNOWN_INODES))
