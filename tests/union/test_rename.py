"""Rename: what moves where, what is left behind, and EXDEV exactly where the kernel gives it."""

import errno
import os

import pytest

from tests.rawcalls import RENAME_NOREPLACE, RENAME_WHITEOUT
from tests.trees import File, Symlink
from tests.union.conftest import Opener, fails, is_whiteout

pytestmark = [pytest.mark.root]

LOWER = {"d/f": File(b"f"), "d/sub/x": File(b"x"), "e/g": File(b"g"), "l": Symlink("d")}


def test_a_lower_file_moves_and_leaves_a_whiteout(open_union: Opener) -> None:
    """Copied up, renamed; the old name is a whiteout."""
    union = open_union(LOWER)
    union.rename(b"d/f", b"e/f", 0)
    assert is_whiteout(union.upper / "d/f")
    union = union.reopen()
    assert union.names(b"d") == [b"sub"]
    assert union.content(b"e/f") == b"f"
    assert union.leftovers() == []


def test_an_upper_file_moves_without_a_trace(open_union: Opener) -> None:
    """Nothing below has the name: no whiteout."""
    union = open_union(LOWER)
    union.write_file(b"e/new", b"n")
    union.rename(b"e/new", b"e/newer", 0)
    assert sorted(os.listdir(union.upper / "e")) == ["newer"]


def test_over_a_lower_file(open_union: Opener) -> None:
    """The target's lower content is gone for good."""
    union = open_union(LOWER)
    union.rename(b"d/f", b"e/g", 0)
    union = union.reopen()
    assert union.content(b"e/g") == b"f"
    assert not union.exists(b"d/f")


def test_over_a_whiteout(open_union: Opener) -> None:
    """A removed name can be renamed to; removed again it stays away."""
    union = open_union(LOWER)
    union.unlink(b"e/g")
    union.rename(b"d/f", b"e/g", 0)
    assert union.reopen().content(b"e/g") == b"f"
    union = union.reopen()
    union.unlink(b"e/g")
    assert union.reopen().names(b"e") == []


@pytest.mark.parametrize("path", [b"d", b"e"])
def test_a_lower_directory_without_redirects_is_exdev(open_union: Opener, path: bytes) -> None:
    """redirect_dir=off: mv copies, as over file systems; nothing was changed by the try."""
    union = open_union(LOWER)
    with fails(errno.EXDEV):
        union.rename(path, b"new", 0)
    assert os.listdir(union.upper) == []


def test_a_merged_directory_without_redirects_is_exdev(open_union: Opener) -> None:
    """Also when its upper part exists already."""
    union = open_union(LOWER)
    union.write_file(b"d/new", b"n")
    with fails(errno.EXDEV):
        union.rename(b"d", b"e/d", 0)


def test_an_upper_directory_moves_without_redirects(open_union: Opener) -> None:
    """Pure upper directories need none, with all they hold."""
    union = open_union(LOWER)
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/f", b"n")
    union.rename(b"new", b"e/moved", 0)
    assert union.reopen().content(b"e/moved/f") == b"n"


def test_a_moved_directory_over_an_empty_one(open_union: Opener) -> None:
    """Allowed when the target is empty in the merged view, whiteouts or not; ENOTEMPTY otherwise."""
    union = open_union(LOWER, redirect_dir="on")
    with fails(errno.ENOTEMPTY):
        union.rename(b"d", b"e", 0)
    union.unlink(b"e/g")
    union.rename(b"d", b"e", 0)
    assert union.reopen().names(b"e") == [b"f", b"sub"]


def test_an_upper_directory_renamed_over_a_removed_one_is_opaque(open_union: Opener) -> None:
    """The lower directory of that name stays hidden."""
    union = open_union({"d/f": File()}, redirect_dir="on")
    union.unlink(b"d/f")
    union.rmdir(b"d")
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/n", b"n")
    union.rename(b"new", b"d", 0)
    assert union.upper_xattrs("d")["trusted.overlay.opaque"] == b"y"
    assert union.reopen().names(b"d") == [b"n"]


def test_flags(open_union: Opener) -> None:
    """NOREPLACE refuses a name that is there, also a lower's; WHITEOUT is refused, as the kernel does."""
    union = open_union(LOWER)
    with fails(errno.EEXIST):
        union.rename(b"d/f", b"e/g", RENAME_NOREPLACE)
    union.rename(b"d/f", b"e/new", RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        union.rename(b"e/g", b"e/h", RENAME_WHITEOUT)
    assert union.names(b"e") == [b"g", b"new"]


def test_the_renamed_node_is_the_same(open_union: Opener) -> None:
    """st_ino and an open descriptor survive the rename of a lower file and of a lower directory."""
    union = open_union(LOWER, redirect_dir="on")
    fd = union.open(b"d/sub/x", os.O_RDONLY, 0)
    before = union.fstatus(fd).ino, union.lstat(b"d").ino
    union.rename(b"d", b"e/d", 0)
    assert (union.fstatus(fd).ino, union.lstat(b"e/d").ino) == before
    assert union.lstat(b"e/d/sub/x").ino == before[0]
    assert union.pread(fd, 10, 0) == b"x"
