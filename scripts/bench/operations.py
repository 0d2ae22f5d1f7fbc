"""The clients: plain loops over names of the current directory, as cheap as Python can make them.

Each is run with the working directory inside the mount and with names made before, so that the client's own
cost is small and the same for all contenders.
"""

import os
import time
from collections.abc import Callable

MIB = bytes(range(256)) * 4096
PAGE = MIB[:4096]


def timed(work: Callable[[], None], times: int = 1) -> float:
    """Seconds that `work`, done `times` over, takes."""
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - begin


def file_names(count: int, prefix: str = "file") -> list[str]:
    return [f"{prefix}-{number:06d}" for number in range(count)]


def stat_all(names: list[str]) -> None:
    for name in names:
        os.stat(name)


def miss_all(names: list[str]) -> None:
    """Look up missing names by access(2), which returns an error without an exception."""
    for name in names:
        os.access(name, os.F_OK)


def read_all(names: list[str]) -> None:
    for name in names:
        fd = os.open(name, os.O_RDONLY)
        os.read(fd, 65536)
        os.close(fd)


def list_names() -> None:
    os.listdir(".")


def list_and_stat() -> None:
    with os.scandir(".") as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def create_all(names: list[str]) -> None:
    for name in names:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"hello")
        os.close(fd)


def append_all(names: list[str]) -> None:
    for name in names:
        fd = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"hello")
        os.close(fd)


def chmod_all(names: list[str]) -> None:
    for name in names:
        os.chmod(name, 0o600)


def rename_all(names: list[str]) -> None:
    for name in names:
        os.rename(name, name + ".new")


def unlink_all(names: list[str]) -> None:
    for name in names:
        os.unlink(name)


def make_and_remove_all(names: list[str]) -> None:
    for name in names:
        os.mkdir(name)
    for name in names:
        os.rmdir(name)


def read_big(name: str) -> None:
    fd = os.open(name, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)


def write_big(name: str, mib: int, sync: bool) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for _ in range(mib):
        os.write(fd, MIB)
    if sync:
        os.fsync(fd)
    os.close(fd)


def read_pages(name: str, offsets: list[int]) -> None:
    fd = os.open(name, os.O_RDONLY)
    for offset in offsets:
        os.pread(fd, 4096, offset)
    os.close(fd)


def write_pages(name: str, offsets: list[int]) -> None:
    """The close belongs to it: it is where a write-back cache hands its pages over."""
    fd = os.open(name, os.O_WRONLY)
    for offset in offsets:
        os.pwrite(fd, PAGE, offset)
    os.close(fd)
