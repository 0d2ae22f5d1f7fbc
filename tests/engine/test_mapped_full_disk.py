"""Stores into a shared mapping of a file whose disk is full: who asks is told, by msync, fsync or close.

The kernel's overlayfs and data=passthrough tell at the store itself, by a signal. Elsewhere a page is
written back later; who unmaps it before he closes the file, or asks nobody, is not told (docs/limits.md).
"""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounts import KernelMount, Layers, OverlayMount, flavours, loop_filesystem, make_layers, status

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]
SIZE = 1 << 20
_STORING = f"""
import errno, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(fd, {SIZE})
mapping[:] = b"x" * {SIZE}
try:
    match sys.argv[2]:
        case "msync": mapping.flush()
        case "fsync": os.fsync(fd)
        case "close": os.close(fd)
        case "unmap, fsync":
            mapping.close()
            os.fsync(fd)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small(where: Path) -> Iterator[Layers]:
    """Layers whose upper has a small disk of its own."""
    layers = make_layers(where)
    with loop_filesystem(where, 16 << 20) as disk:
        (disk / "upper").mkdir()
        (disk / "work").mkdir()
        yield dataclasses.replace(layers, upper=disk / "upper", work=disk / "work")


def fill(disk: Path) -> None:
    with open(disk / "ballast", "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                os.fsync(file)


def stored(layers: Layers, how: str) -> tuple[int, str]:
    """What becomes of a process that stores into a file all of holes: exit status, what it was told."""
    path = layers.merged / "file"
    path.touch()
    os.truncate(path, SIZE)
    fill(layers.upper.parent)
    process = subprocess.run(
        [sys.executable, "-c", _STORING, str(path), how],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    (layers.upper.parent / "ballast").unlink()
    return process.returncode, process.stdout.strip()


@pytest.mark.parametrize("how", ["msync", "fsync", "close", "unmap, fsync"])
def test_who_asks_is_told(small: Layers, mount: Mounter, how: str) -> None:
    mounted = mount(small)
    at_once = status(mounted)["data"] == "passthrough"
    assert stored(small, how) == ((-signal.SIGBUS, "") if at_once else (0, "ENOSPC"))


def test_the_kernels_overlay_tells_at_once(small: Layers, kernel_overlay: Callable[..., KernelMount]) -> None:
    kernel_overlay(small)
    assert stored(small, "msync") == (-signal.SIGBUS, "")


def test_room_can_be_made_sure_of_before(small: Layers, mount: Mounter) -> None:
    """posix_fallocate, as lld and gold do."""
    mount(small)
    with open(small.merged / "file", "wb") as file:
        fill(small.upper.parent)
        with pytest.raises(OSError, match="No space"):
            os.posix_fallocate(file.fileno(), 0, SIZE)
