"""The whole overlay: read-only or not, its space, its end."""

import errno
import os
from collections.abc import Callable

import pytest

from tests.mounts import LowerLayers
from tests.oracle.overlay_vfs import OverlayVfs
from tests.trees import Dir, File
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]


def _everything_that_writes(union: OverlayVfs) -> list[Callable[[], object]]:
    return [
        lambda: union.open(b"f", os.O_WRONLY, 0),
        lambda: union.open(b"new", os.O_CREAT | os.O_RDWR, 0o644),
        lambda: union.mkdir(b"new", 0o755),
        lambda: union.mknod(b"new", 0o100644, 0),
        lambda: union.symlink(b"x", b"new"),
        lambda: union.link(b"f", b"new"),
        lambda: union.unlink(b"f"),
        lambda: union.rmdir(b"d"),
        lambda: union.rename(b"f", b"new", 0),
        lambda: union.chmod(b"f", 0o600),
        lambda: union.chown(b"f", 1, 1),
        lambda: union.truncate(b"f", 0),
        lambda: union.touch(b"f"),
        lambda: union.setxattr(b"f", b"user.x", b"", 0),
        lambda: union.removexattr(b"f", b"user.k"),
    ]


def test_without_an_upper_everything_is_erofs(open_union: Opener) -> None:
    """A union of lowers alone reads, and answers EROFS to all that writes."""
    layers = open_union({"f": File(b"f", xattrs={b"user.k": b"v"}), "d": Dir()}).layers
    only = LowerLayers(lowers=layers.lowers, merged=layers.merged)
    union = Union(only, {})
    try:
        assert union.overlay.read_only
        assert union.content(b"f") == b"f"
        for operation in _everything_that_writes(union):
            with fails(errno.EROFS):
                operation()
        assert union.names() == [b"d", b"f"]
    finally:
        union.close_all_layers()


def test_statfs_is_the_uppers(open_union: Opener) -> None:
    """Free space is what can be written; the longest name is 255."""
    union = open_union({"f": File()})
    ours, upper = union.overlay.statfs(), os.statvfs(union.upper)
    assert (ours.f_bsize, ours.f_blocks, ours.f_files, ours.f_namemax) == (
        upper.f_bsize,
        upper.f_blocks,
        upper.f_files,
        255,
    )


def test_close_is_idempotent_and_lets_go(open_union: Opener) -> None:
    """No descriptor is left open."""
    before = set(os.listdir("/proc/self/fd"))
    union = open_union({"d/f": File(b"f")}, {"d/g": File()})
    union.snapshot()
    union.write_file(b"d/f", b"new")
    fd = union.open(b"d/f", os.O_RDONLY, 0)
    union.close(fd)
    union.overlay.close()
    union.overlay.close()
    assert len(set(os.listdir("/proc/self/fd"))) == len(before)
