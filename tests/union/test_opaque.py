"""Opaque directories: which marks cut a merge, and when the union writes one."""

import os

import pytest

from tests import trees
from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener

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


def test_mkdir_over_a_whiteout_is_opaque(open_union: Opener) -> None:
    """The removed directory's content must not come back; the mark is the kernel's."""
    union = open_union(LOWER)
    union.unlink(b"d/sub/deep")
    union.rmdir(b"d/sub")
    union.mkdir(b"d/sub", 0o700)
    assert union.upper_xattrs("d/sub")["trusted.overlay.opaque"] == b"y"
    union = union.reopen()
    assert union.names(b"d/sub") == []
    assert union.lstat(b"d/sub").mode & 0o7777 == 0o700


def test_nested_removal_and_making_again(open_union: Opener) -> None:
    """rm -r d; mkdir -p d/sub: nothing of the lower shows at any depth, and rmdir works again."""
    union = open_union(LOWER)
    for path in (b"d/sub/deep", b"d/old"):
        union.unlink(path)
    union.rmdir(b"d/sub")
    union.rmdir(b"d")
    union.mkdir(b"d", 0o755)
    union.mkdir(b"d/sub", 0o755)
    union = union.reopen()
    assert union.names(b"d") == [b"sub"]
    assert union.names(b"d/sub") == []
    union.rmdir(b"d/sub")
    union.rmdir(b"d")
    assert union.names() == []


def test_mkdir_of_a_new_name_is_not_opaque(open_union: Opener) -> None:
    """No lower has the name: a mark would be needless, and a commit would carry it."""
    union = open_union(LOWER)
    union.mkdir(b"new", 0o755)
    union.mkdir(b"d/new", 0o755)
    union.mkdir(b"d/new/sub", 0o755)
    for path in ("new", "d/new", "d/new/sub"):
        assert union.upper_xattrs(path) == {}
    assert os.listdir(union.upper / "d") == ["new"]


def test_an_opaque_lower_keeps_its_own_metadata(open_union: Opener) -> None:
    """Mode, owner and times of the merged directory are the topmost layer's."""
    union = open_union({"d": Dir(opaque="y", mode=0o711, uid=7, gid=8, mtime_ns=5)}, LOWER)
    status = union.lstat(b"d")
    assert (status.mode & 0o7777, status.uid, status.gid, status.mtime_ns) == (0o711, 7, 8, 5)


def test_the_mark_is_not_seen_and_cannot_be_set(open_union: Opener) -> None:
    """An opaque directory has no xattr of that name for users; setting it stores another, escaped one."""
    union = open_union({"d": Dir(opaque="y")}, LOWER)
    assert union.listxattr(b"d") == []
    union.setxattr(b"d", b"trusted.overlay.opaque", b"mine", 0)
    assert union.getxattr(b"d", b"trusted.overlay.opaque") == b"mine"
    assert union.upper_xattrs("d")["trusted.overlay.overlay.opaque"] == b"mine"
    assert "trusted.overlay.opaque" not in union.upper_xattrs("d")
