"""The upper: one mount writes to it, and knows what it is for."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from overlayfs_py.errors import OverlayError
from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.layer import O_DIRFD, Layer, Real
from overlayfs_py.union.upper import Upper
from tests.mounts import Layers, make_layers
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]


def test_an_upper_in_use_is_refused(open_union: Opener) -> None:
    """With another work directory too: neither would see what the other changes."""
    union = open_union()
    here = union.layers
    other = Layers(lowers=here.lowers, upper=union.upper, work=here.merged, merged=here.merged)
    with pytest.raises(OverlayError, match=r"upperdir .* in use"):
        Union(other, {})
    assert union.reopen().names() == []


def test_the_lock_goes_with_the_mount(open_union: Opener) -> None:
    """Whatever ended it: the lock is the kernel's (flock), so a crash leaves none behind."""
    union = open_union()
    fd = os.open(union.upper, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        union.close_all_layers()
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_two_uppers_may_share_the_lowers(open_union: Opener) -> None:
    union = open_union()
    union.write_file(b"mine", b"")
    here = union.layers
    where = union.upper.parent / "second"
    where.mkdir()
    other = make_layers(where, lowers=0)
    second = Union(Layers(lowers=here.lowers, upper=other.upper, work=other.work, merged=other.merged), {})
    try:
        assert second.names() == []
    finally:
        second.close_all_layers()


def test_an_upper_opened_to_read_refuses_what_writes(tmp_path: Path) -> None:
    """EROFS for its work directory and its record of renames: neither is there."""
    fds: FdCache[Real] = FdCache(10)
    upper = Upper(Layer(os.fsencode(tmp_path), os.open(tmp_path, O_DIRFD), -1, fds, Held(1)), None)
    with fails(errno.EROFS):
        _ = upper.work
    with fails(errno.EROFS):
        _ = upper.pending
    upper.close()
    upper.close()
