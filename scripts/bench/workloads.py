"""What the main run measures: one row each, with what it needs in the lower layer and what is timed.

A workload has a directory of its own, so none meets what another has looked up, and they run in the
order of the table: what creates comes before what removes (ext4 avoids the inodes of removed files).
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import material
import operations
import programs
from material import ARCHIVED, COMMITTED, Fill
from operations import timed
from scale import files

BIG_MIB = 256
PAGES = 4000


@dataclass(frozen=True)
class Workload:
    """A row. `measure` is called at the root of the mount; a figure is for one of `count`."""

    name: str
    directory: str
    fill: Fill | None  # fills `directory` in the lower; None: an earlier row did
    measure: Callable[[], float]  # seconds; may leave the working directory
    count: int = 1
    unit: str = "ms"
    before: Callable[[Path], None] | None = None  # gets the lower's directory, off the clock
    needs: str = ""  # a program

    def figure(self, seconds: float) -> float:
        """In the row's unit: MB/s is higher-is-better, the others lower."""
        if self.unit == "MB/s":
            return self.count * 1.048576 / seconds
        return seconds / self.count * {"ms": 1e3, "µs": 1e6}[self.unit]

    def possible(self) -> bool:
        return not self.needs or shutil.which(self.needs) is not None


def entering(directory: str, work: Callable[[], None], passes: int = 1) -> Callable[[], float]:
    """Times `work` in `directory`, and going there: some contenders read a directory when it is looked up."""

    def measure() -> float:
        begin = time.perf_counter()
        os.chdir(directory)
        for _ in range(passes):
            work()
        return time.perf_counter() - begin

    return measure


def each(
    name: str,
    directory: str,
    work: Callable[[list[str]], None],
    names: list[str],
    fill: Fill | None = None,
    passes: int = 1,
) -> Workload:
    """A row of microseconds a name; `passes` times over, where that changes nothing."""
    measure = entering(directory, lambda: work(names), passes)
    return Workload(name, directory, fill, measure, len(names) * passes, "µs")


def whole(
    name: str, directory: str, work: Callable[[], None], fill: Fill | None = None, passes: int = 1
) -> Workload:
    """A row of milliseconds a call."""
    return Workload(name, directory, fill, entering(directory, work, passes), passes)


def program(
    name: str, directory: str, work: Callable[[], None], fill: Fill, passes: int, needs: str = ""
) -> Workload:
    """A row of milliseconds a run, after one that is not timed: the second is what users wait for."""

    def measure() -> float:
        os.chdir(directory)
        work()
        return timed(work, passes)

    return Workload(name, directory, fill, measure, passes, needs=needs)


def stream(
    name: str,
    directory: str,
    work: Callable[[], None],
    fill: Fill | None = None,
    before: Callable[[Path], None] | None = None,
) -> Workload:
    """A row of MB/s over `BIG_MIB`."""
    return Workload(name, directory, fill, entering(directory, work), BIG_MIB, "MB/s", before)


def pages(name: str, directory: str, work: Callable[[], None]) -> Workload:
    """A row of microseconds a page at one of `OFFSETS`."""
    return Workload(name, directory, None, entering(directory, work), PAGES, "µs")


def drop_pages(directory: Path) -> None:
    """The layer's file leaves the page cache (the disk image stays in memory: a quick disk)."""
    fd = os.open(directory / "cold", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


N300, N1000, N2000, N5000 = (operations.file_names(files(count)) for count in (300, 1000, 2000, 5000))
LISTED, LISTED_MANY = files(10_000), files(100_000)
ABSENT = operations.file_names(files(2000), "absent")
RENAMED = [f"{name}.new" for name in N2000]
OFFSETS = [4096 * page for page in random.Random(1).sample(range(BIG_MIB * 256), PAGES)]

LOOKING: tuple[Workload, ...] = (
    each("open+read+close, first", "read", operations.read_all, N2000, material.small_files(len(N2000))),
    each("open+read+close, repeated", "read", operations.read_all, N2000, passes=5),
    each("stat, first", "stat", operations.stat_all, N5000, material.small_files(len(N5000))),
    each("stat, repeated", "stat", operations.stat_all, N5000, passes=5),
    each(
        "missing name, first", "missing", operations.miss_all, ABSENT, material.small_files(len(N1000), b"")
    ),
    each("missing name, repeated", "missing", operations.miss_all, ABSENT, passes=5),
    whole(f"list {LISTED:,} names, first", "list", operations.list_names, material.small_files(LISTED, b"")),
    whole(f"list {LISTED:,} names, repeated", "list", operations.list_names, passes=5),
    whole(
        f"scandir+stat of {LISTED:,}, first",
        "scan",
        operations.list_and_stat,
        material.small_files(LISTED, b""),
    ),
    whole(f"scandir+stat of {LISTED:,}, repeated", "scan", operations.list_and_stat, passes=3),
)

if LISTED_MANY != LISTED:  # FILES makes them one
    LOOKING += (
        whole(
            f"list {LISTED_MANY:,} names, first",
            "d100k",
            operations.list_names,
            material.small_files(LISTED_MANY, b""),
        ),
    )

PROGRAMS = (
    program(
        "python start with 14 imports, second run", "python", programs.start_python, material.python_home, 5
    ),
    program(
        f"git status of {COMMITTED:,} files, second run",
        "git",
        programs.git_status,
        material.repository,
        3,
        "git",
    ),
    program("compile 50 C files, second run", "c", programs.compile_all, material.c_sources, 1, "gcc"),
)

DATA = (
    stream(
        "sequential read, cold",
        "big",
        lambda: operations.read_big("cold"),
        material.big_files(BIG_MIB, "cold", "first"),
        before=drop_pages,
    ),
    stream("sequential read, first", "big", lambda: operations.read_big("first")),
    stream("sequential read, warm", "big", lambda: operations.read_big("first")),
    pages("4 KiB random read, warm", "big", lambda: operations.read_pages("first", OFFSETS)),
    stream(
        "sequential write", "write", lambda: operations.write_big("plain", BIG_MIB, False), material.nothing
    ),
    stream("sequential write + fsync", "write", lambda: operations.write_big("synced", BIG_MIB, True)),
    pages("4 KiB random write", "write", lambda: operations.write_pages("synced", OFFSETS)),
)

CREATION = (
    each("create+write+close", "new", operations.create_all, N2000, material.nothing),
    whole(f"tar -x of {ARCHIVED:,} files", "tar", programs.unpack, material.archive),
)

CHANGES = (
    each("copy-up by chmod", "chmod", operations.chmod_all, N300, material.small_files(len(N300))),
    each("copy-up by append", "append", operations.append_all, N300, material.small_files(len(N300))),
    whole("copy-up of a 256 MiB file", "big", lambda: operations.append_all(["cold"])),
    each("rename of a new file", "new", operations.rename_all, N2000),
    each("rename of a lower file", "old", operations.rename_all, N300, material.small_files(len(N300))),
    each("mkdir+rmdir", "directories", operations.make_and_remove_all, N1000, material.nothing),
    each("unlink of a new file", "new", operations.unlink_all, RENAMED),
    each("unlink of a lower file", "gone", operations.unlink_all, N2000, material.small_files(len(N2000))),
    whole(f"rm -rf of {ARCHIVED:,} new files", "tar", programs.remove_unpacked),
    whole(f"rm -rf of {ARCHIVED:,} lower files", "tar", programs.remove_lower_tree),
)

WORKLOADS = LOOKING + PROGRAMS + CREATION + DATA + CHANGES
