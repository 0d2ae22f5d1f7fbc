"""One name through the stack: which marks cut a merge, and what cannot be a name."""

import errno
import os

import pytest

from tests import trees
from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]

LOWER = {"d/old": File(b"old"), "d/sub/deep": File(b"deep")}


@pytest.mark.parametrize(
    "top",
    [
        Dir(opaque="y"),
        Dir(opq_file=True),
        Dir(xattrs={b"user.overlay.opaque": b"y"}),
        Dir(xattrs={b"user.fuseoverlayfs.opaque": b"y"}),
    ],
    ids=["trusted.overlay", "aufs", "user.overlay", "fuse-overlayfs"],
)
def test_every_form_cuts_the_merge(open_union: Opener, top: trees.Entry) -> None:
    """trusted.overlay.opaque=y, `.wh..wh..opq`, user.overlay., user.fuseoverlayfs.: the layer's own shows."""
    union = open_union({"d": top, "d/new": File(b"new")}, LOWER)
    assert union.names(b"d") == [b"new"]
    assert not union.exists(b"d/sub")


def test_an_aufs_opaque_file_works_below_the_top(open_union: Opener) -> None:
    """`.wh..wh..opq` of a nested directory is honoured, and its parent stays merged."""
    union = open_union({"d/sub": Dir(opq_file=True), "d/sub/new": File()}, LOWER)
    assert union.names(b"d") == [b"old", b"sub"]
    assert union.names(b"d/sub") == [b"new"]


def test_an_aufs_opaque_file_in_the_root_of_a_layer(open_union: Opener) -> None:
    """It hides all layers below."""
    union = open_union({"": Dir(opq_file=True), "x": File()}, {"y": File()})
    assert union.names() == [b"x"]


def test_other_values_do_not_cut(open_union: Opener) -> None:
    """overlay.opaque counts by its value: `x` only says that xattr whiteouts are inside."""
    union = open_union({"d": Dir(opaque="x"), "d/new": File()}, LOWER)
    assert union.names(b"d") == [b"new", b"old", b"sub"]


def test_xattr_whiteouts_in_an_x_directory(open_union: Opener) -> None:
    """`x` does not hide, its whiteouts do."""
    union = open_union({"d/old": Whiteout(form="xattr")}, LOWER)
    assert union.names(b"d") == [b"sub"]


def test_opaque_in_the_middle(open_union: Opener) -> None:
    """Layers above an opaque one merge with it; those below are gone."""
    union = open_union({"d/top": File()}, {"d": Dir(opaque="y"), "d/middle": File()}, LOWER)
    assert union.names(b"d") == [b"middle", b"top"]


def test_an_opaque_lower_keeps_its_own_metadata(open_union: Opener) -> None:
    """Mode, owner and times of the merged directory are the topmost layer's."""
    union = open_union({"d": Dir(opaque="y", mode=0o711, uid=7, gid=8, mtime_ns=5)}, LOWER)
    status = union.lstat(b"d")
    assert (status.mode & 0o7777, status.uid, status.gid, status.mtime_ns) == (0o711, 7, 8, 5)


def test_names_of_256_bytes(open_union: Opener) -> None:
    """ENAMETOOLONG, from lookup as from creation."""
    union = open_union()
    name = b"n" * 256
    for operation in (
        lambda: union.lstat(name),
        lambda: union.mkdir(name, 0o755),
        lambda: union.open(name, os.O_CREAT | os.O_RDWR, 0o644),
        lambda: union.symlink(b"x", name),
    ):
        with fails(errno.ENAMETOOLONG):
            operation()
