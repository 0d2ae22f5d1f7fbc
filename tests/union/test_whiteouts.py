"""Whiteouts: what hides a lower name, what removal writes, what creation over one leaves."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.trees import Dir, File, Symlink, Whiteout, fifo
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]


def is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


@pytest.mark.parametrize("form", ["device", "xattr", "aufs"])
def test_every_form_hides_the_name_below(open_union: Opener, form: str) -> None:
    """0:0 device, empty file with overlay.whiteout, `.wh.NAME`: each hides and is not seen."""
    union = open_union(
        {"d/f": Whiteout(form=form), "d/sub": Whiteout(form=form), "d/own": File(b"own")},
        {"d/f": File(b"f"), "d/sub/x": File(b"x"), "d/kept": File(b"kept")},
    )
    assert union.names(b"d") == [b"kept", b"own"]
    assert not union.exists(b"d/f")
    assert not union.exists(b"d/sub/x")


@pytest.mark.parametrize("form", ["device", "xattr", "aufs"])
def test_a_whiteout_hides_layers_below_not_beside_or_above(open_union: Opener, form: str) -> None:
    """What a layer above has under the name shows; what two layers below have does not."""
    union = open_union(
        {"f": File(b"top")},
        {"f": Whiteout(form=form), "g": Whiteout(form=form)},
        {"f": File(b"low"), "g": File()},
    )
    assert union.content(b"f") == b"top"
    assert union.names() == [b"f"]


def test_an_aufs_whiteout_and_a_file_of_one_layer(open_union: Opener) -> None:
    """`.wh.f` beside f in one layer: f is that layer's, the whiteout is for those below."""
    union = open_union({"d/f": File(b"new"), "d/.wh.f": File()}, {"d/f": File(b"old")})
    assert union.content(b"d/f") == b"new"
    assert union.names(b"d") == [b"f"]


def test_a_whiteout_of_nothing_is_not_seen(open_union: Opener) -> None:
    """A whiteout whose name no lower has is no entry either."""
    union = open_union({"d/ghost": Whiteout(), "d/x": File()}, {"d/y": File()})
    assert union.names(b"d") == [b"x", b"y"]
    assert not union.exists(b"d/ghost")


def test_unlink_of_a_lower_file_writes_the_kernels_whiteout(open_union: Opener) -> None:
    """A 0:0 character device in the upper, its parent copied up."""
    union = open_union({"d/f": File(b"f", mode=0o600), "d": Dir(mode=0o750, uid=5)})
    union.unlink(b"d/f")
    assert is_whiteout(union.upper / "d/f")
    assert stat.S_IMODE((union.upper / "d").stat().st_mode) == 0o750
    assert union.names(b"d") == []
    assert union.leftovers() == []


def test_unlink_of_an_upper_file_leaves_nothing(open_union: Opener) -> None:
    """No lower has the name: no whiteout is needed."""
    union = open_union()
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert os.listdir(union.upper) == []


def test_unlink_of_a_copied_up_file_leaves_a_whiteout(open_union: Opener) -> None:
    """The lower's file must not come back."""
    union = open_union({"f": File(b"old")})
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert is_whiteout(union.upper / "f")
    assert not union.reopen().exists(b"f")


def test_no_whiteout_where_a_layer_between_hides_the_name_already(open_union: Opener) -> None:
    """A lower whiteout is enough: the upper stays free of needless ones."""
    union = open_union({"f": Whiteout()}, {"f": File(b"old")})
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert not union.exists(b"f")
    assert os.listdir(union.upper) == []


@pytest.mark.parametrize("entry", [File(b"x"), Symlink("x"), fifo()], ids=["file", "symlink", "fifo"])
def test_creation_replaces_a_whiteout(open_union: Opener, entry: object) -> None:
    """Each kind can be made again under a removed name, and is there after a remount."""
    union = open_union({"n": entry})
    kind = union.lstat(b"n").mode
    union.unlink(b"n")
    union.symlink(b"to", b"n") if stat.S_ISLNK(kind) else union.mknod(b"n", kind, 0)
    union = union.reopen()
    assert stat.S_IFMT(union.lstat(b"n").mode) == stat.S_IFMT(kind)
    assert union.names() == [b"n"]
    assert union.leftovers() == []


def test_rmdir_of_a_directory_full_of_whiteouts(open_union: Opener) -> None:
    """Empty in the merged view is empty; the upper's whiteouts go with it."""
    union = open_union({"d/a": File(), "d/b": File()})
    union.unlink(b"d/a")
    with fails(errno.ENOTEMPTY):
        union.rmdir(b"d")
    union.unlink(b"d/b")
    union.rmdir(b"d")
    assert is_whiteout(union.upper / "d")
    assert union.leftovers() == []


def test_a_users_whiteout_is_refused(open_union: Opener) -> None:
    """mknod of a 0:0 character device would remove a lower's name behind the union's back: EPERM."""
    union = open_union({"f": File()})
    union.unlink(b"f")
    for name in (b"f", b"new"):
        with pytest.raises(PermissionError):
            union.mknod(name, stat.S_IFCHR | 0o600, 0)


def test_aufs_meta_names_are_hidden(open_union: Opener) -> None:
    """`.wh..wh.plnk` and its like in a lower are AUFS's own."""
    union = open_union({".wh..wh.plnk": Dir(), ".wh..wh.aufs": File(), "x": File()})
    assert union.names() == [b"x"]


def test_kernel_and_union_agree_on_what_removal_left(open_union: Opener) -> None:
    """The upper after removals, mounted by the kernel, is the tree the union shows."""
    union = open_union({"d/a": File(), "d/b": File(), "e/f": File()}, {"d/c": File(), "e": Dir()})
    union.unlink(b"d/a")
    union.unlink(b"d/c")
    union.unlink(b"e/f")
    union.rmdir(b"e")
    ours = set(union.snapshot())
    assert set(union.kernel_snapshot()) == ours == {b"", b"d", b"d/b"}
