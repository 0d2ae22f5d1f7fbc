"""Pages changed through a shared mapping, and what others see of them by stat(2), beside the kernel's.

A store is no request: the daemon hears of it when the page is written back (msync, close, munmap, or half a
minute later). Until then times and blocks are the old ones, unless the page is a layer's own
(data=passthrough), whose file system notices the first store as it does under the kernel's overlayfs, or the
kernel keeps the times itself (data=writeback), while the upper lags behind.
"""

import contextlib
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounts import KernelMount, Layers, OverlayMount, flavours, make_layers

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]
PAGE = mmap.PAGESIZE
FIELDS = ("mtime", "ctime", "size", "blocks")
LONG_AGO = 10**9
_WRITER = f"""
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(fd, 0)
for line in sys.stdin:
    match line.strip():
        case "store": mapping[{9 * PAGE}] += 1
        case "msync": mapping.flush()
        case "close": os.close(fd)
        case "unmap": mapping.close()
    print(flush=True)
"""
_LOOK = """
import os, sys
found = os.stat(sys.argv[1])
print(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_blocks)
"""
STEPS = ("store", "msync", "store", "close", "unmap")
AS_THE_KERNEL = ["mtime ctime blocks", "", "mtime ctime", "", ""]
AT_WRITE_BACK = ["", "mtime ctime blocks", "", "mtime ctime", ""]
TIMES_AT_ONCE = ["mtime ctime", "", "mtime ctime", "blocks", ""]
EXPECTED = {"passthrough": AS_THE_KERNEL, "writeback": TIMES_AT_ONCE}


class Writer:
    """A process that maps a file and stores into it when told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, step: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(step + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "\n"


@contextlib.contextmanager
def writer(path: Path) -> Iterator[Writer]:
    command = [sys.executable, "-I", "-S", "-c", _WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


def seen(path: Path) -> tuple[int, ...]:
    """stat(2) by another process."""
    command = [sys.executable, "-I", "-S", "-c", _LOOK, str(path)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    return tuple(map(int, done.stdout.split()))


def changes(layers: Layers, *, lags: bool = False) -> list[str]:
    """What others see change with each step: always what the upper has, unless that `lags` behind."""
    path = layers.merged / "file"
    os.utime(path, (LONG_AGO, LONG_AGO))
    found = []
    with writer(path) as process:
        before = seen(path)
        for step in STEPS:
            process.do(step)
            after = seen(path)
            if not lags:
                assert after == seen(layers.upper / "file")
            found.append(" ".join(n for n, a, b in zip(FIELDS, before, after, strict=True) if a != b))
            before = after
    return found


def sparse_file(lower: Path) -> None:
    with (lower / "file").open("wb") as file:
        file.truncate(64 * PAGE)


def test_the_kernel(layers: Layers, kernel_overlay: Callable[..., KernelMount]) -> None:
    sparse_file(layers.lowers[0])
    kernel_overlay(layers)
    assert changes(layers) == AS_THE_KERNEL


@pytest.mark.parametrize("engine", flavours())
def test_what_others_see(layers: Layers, mount: Mounter, engine: str) -> None:
    """The size is always right; times and blocks are, at the latest, once the page is written back."""
    sparse_file(layers.lowers[0])
    mount(layers)
    assert changes(layers, lags=engine == "writeback") == EXPECTED.get(engine, AT_WRITE_BACK)


@pytest.mark.parametrize("engine", flavours())
def test_no_store_is_lost(where: Path, mount: Mounter, engine: str) -> None:
    """Whoever reads the mount sees a store at once, also before it is written back."""
    layers = make_layers(where)
    sparse_file(layers.lowers[0])
    mount(layers)
    with writer(layers.merged / "file") as process:
        for number in (1, 2, 3):
            process.do("store")
            with (layers.merged / "file").open("rb") as file:
                assert os.pread(file.fileno(), 1, 9 * PAGE) == bytes([number])
