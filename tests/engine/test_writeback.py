"""data=writeback: a write is answered before the upper has it, and nobody who asks the mount can tell."""

import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.errors import ConfigError
from overlayfs_py.options import parse_options
from overlayfs_py.service import client
from overlayfs_py.service.rundir import default_run_dir
from tests.mounts import Layers, OverlayMount, make_layers, status

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]
LONG_AGO_NS = 10**18
OLD, NEW = b"old" * 1000, b"new"


@pytest.fixture
def engine() -> str:
    """The flavour; what `mount` mounts."""
    return "writeback"


def write_and_sync(fd: int, content: bytes) -> None:
    os.write(fd, content)
    os.fsync(fd)


@pytest.fixture
def mounted(layers: Layers, mount: Mounter) -> OverlayMount:
    """Over ``file``, of long ago."""
    file = layers.lowers[0] / "file"
    file.write_bytes(OLD)
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return mount(layers)


def open_to_write(path: Path) -> int:
    return os.open(path, os.O_RDWR)


def test_it_is_in_force(mounted: OverlayMount) -> None:
    assert status(mounted)["data"] == "writeback"


def test_the_upper_has_it_when_it_is_closed(layers: Layers, mounted: OverlayMount) -> None:
    fd = open_to_write(layers.merged / "file")
    os.pwrite(fd, NEW, 0)
    assert os.pread(fd, 1 << 20, 0) == NEW + OLD[3:]
    assert not (layers.upper / "file").exists()
    os.close(fd)
    assert (layers.upper / "file").read_bytes() == NEW + OLD[3:]


@pytest.mark.parametrize("sync", [os.fsync, os.fdatasync])
def test_the_upper_has_it_when_it_is_synced(
    layers: Layers, mounted: OverlayMount, sync: Callable[[int], None]
) -> None:
    """And keeps it: the daemon is killed next."""
    fd = open_to_write(layers.merged / "file")
    os.pwrite(fd, NEW, 0)
    sync(fd)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.fsync(fd)
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    assert (layers.upper / "file").read_bytes() == NEW + OLD[3:]


@pytest.mark.parametrize("verb", ["sync", "freeze"])
def test_the_upper_has_it_when_control_says_so(layers: Layers, mounted: OverlayMount, verb: str) -> None:
    fd = open_to_write(layers.merged / "file")
    os.pwrite(fd, NEW, 0)
    with client.connect(default_run_dir(os.environ, os.geteuid()), mounted.root) as daemon:
        daemon.freeze(timeout=20, hold=True) if verb == "freeze" else daemon.ask("sync")
        assert (layers.upper / "file").read_bytes() == NEW + OLD[3:]
    os.close(fd)


def test_holes_are_where_they_are(layers: Layers, mounted: OverlayMount) -> None:
    """The kernel does not write back before it asks for them."""
    fd = os.open(layers.merged / "sparse", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x", 1 << 20)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    os.pwrite(fd, b"y", 0)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 0
    os.close(fd)


@pytest.mark.parametrize("name", ["file", "new"])
def test_times_stay(layers: Layers, mounted: OverlayMount, name: str) -> None:
    """What stat said is what the upper says: also of a file written in the very moment it was made, of whose
    write the kernel tells no time.
    """
    for _ in range(20):
        fd = os.open(layers.merged / name, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, NEW, 0)
        told = os.fstat(fd).st_mtime_ns
        time.sleep(0.006)  # more than a tick of the kernel's clock
        os.close(fd)
        assert (layers.upper / name).stat().st_mtime_ns == told
        (layers.merged / name).unlink()


@pytest.mark.parametrize("name", ["file", "new"])
def test_truncating_to_the_same_size_moves_no_time(layers: Layers, mounted: OverlayMount, name: str) -> None:
    """The kernel keeps the times that it has shown; the upper must not differ."""
    path = layers.merged / name
    if name == "new":
        path.write_bytes(OLD)
        time.sleep(0.006)  # more than a tick of the kernel's clock
    told = path.stat().st_mtime_ns
    os.truncate(path, len(OLD))
    assert path.stat().st_mtime_ns == told
    assert mounted.unmount() == 0
    assert (layers.upper / name).stat().st_mtime_ns == told
    assert (layers.upper / name).read_bytes() == OLD


def test_unmounting_writes_it_all(layers: Layers, mounted: OverlayMount) -> None:
    for number in range(50):
        with (layers.merged / f"file{number}").open("wb") as file:
            file.write(b"%d" % number * 5000)
    assert mounted.unmount() == 0
    for number in range(50):
        assert (layers.upper / f"file{number}").read_bytes() == b"%d" % number * 5000


def test_a_full_disk_is_told_at_the_latest_by_close(where: Path, mount: Mounter) -> None:
    layers = make_layers(where)
    small = where / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        for path in (upper := small / "upper", work := small / "work"):
            path.mkdir()
        mounted = mount(Layers(lowers=layers.lowers, upper=upper, work=work, merged=layers.merged))
        fd = os.open(layers.merged / "large", os.O_RDWR | os.O_CREAT)
        with pytest.raises(OSError, match="No space") as caught:
            write_and_sync(fd, bytes(8 << 20))
        assert caught.value.errno == errno.ENOSPC
        os.close(fd)
        mounted.unmount()
    finally:
        subprocess.run(["umount", small], check=True)


def test_it_needs_layers_that_stay() -> None:
    pairs = [("lowerdir", "/l"), ("data", "writeback"), ("timeout", "0")]
    with pytest.raises(ConfigError, match="cannot be combined with data=writeback"):
        parse_options(pairs, mountpoint=b"/m")
