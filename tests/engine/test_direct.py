"""O_DIRECT beside the page cache: a read that begins after a write has completed shows what was written."""

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import aio
from tests.mounts import Layers, OverlayMount, flavours, status

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]
BLOCK = 1 << 16
BLOCKS = 4
TIMES = 600
_READER = f"""
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(flush=True)
while True:
    for offset in range(0, {BLOCK * BLOCKS}, 4096):
        os.pread(fd, 4096, offset)
"""


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A process that reads the file through the page cache all the time."""
    command = [sys.executable, "-c", _READER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        try:
            reader.stdout.readline()
            yield
        finally:
            reader.kill()


@pytest.mark.parametrize("asynchronous", [True, False], ids=["aio", "pwrite"])
def test_a_write_that_is_complete_is_read(layers: Layers, mount: Mounter, asynchronous: bool) -> None:
    """The kernel drops the pages of an asynchronous write when it is begun, and not when it completes: a
    reader in between would bring the old ones back for good (fuse_aio_complete).
    """
    mounted = mount(layers)
    if asynchronous and not status(mounted)["engine"]["synchronous_direct"]:
        pytest.skip("lacks synchronous_direct")
    path = layers.merged / "file"
    path.write_bytes(bytes(BLOCK * BLOCKS))
    memory = mmap.mmap(-1, BLOCK)
    buffer = (ctypes.c_char * BLOCK).from_buffer(memory)
    direct_fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    cached_fd = os.open(path, os.O_RDONLY)
    wrong = 0
    try:
        with reading(path), aio.context() as context:
            for n in range(TIMES):
                content = bytes([n % 255 + 1]) * BLOCK
                memory[:] = content
                offset = n % BLOCKS * BLOCK
                if asynchronous:
                    assert aio.write(context, direct_fd, buffer, offset) == BLOCK
                else:
                    assert os.pwritev(direct_fd, [memory], offset) == BLOCK
                wrong += os.pread(cached_fd, BLOCK, offset) != content
    finally:
        os.close(direct_fd)
        os.close(cached_fd)
    assert not wrong, f"{wrong} of {TIMES} times"
