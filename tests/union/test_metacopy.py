"""metacopy and userxattr: metadata without data, marks without privilege."""

import os
import stat

import pytest

from overlayfs_py.union import copyup
from tests.trees import Dir, File, Link
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]

ON = {"metacopy": "on", "redirect_dir": "on"}


def test_chown_copies_no_data(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper file has the size and the mark, and no blocks; its content is the lower's."""
    union = open_union({"d/f": File(b"x" * 1_000_000)}, **ON)
    monkeypatch.setattr(copyup, "copy_data", lambda *_: pytest.fail("data was copied"))
    union.chown(b"d/f", 5, 6)
    union.setxattr(b"d/f", b"user.k", b"v", 0)
    union.utimens(b"d/f", 1, 2, False)
    assert "trusted.overlay.metacopy" in union.upper_xattrs("d/f")
    assert (union.upper / "d/f").stat().st_size == 1_000_000
    assert (union.upper / "d/f").stat().st_blocks < 100
    for view in union.now_and_reopened():
        assert view.content(b"d/f") == b"x" * 1_000_000
        assert (view.lstat(b"d/f").uid, view.lstat(b"d/f").mtime_ns) == (5, 2)


def test_a_write_brings_the_data(open_union: Opener) -> None:
    """The mark goes, owner and xattrs stay."""
    union = open_union({"f": File(b"old content")}, **ON)
    union.chown(b"f", 5, 6)
    fd = union.open(b"f", os.O_RDWR, 0)
    union.pwrite(fd, b"new", 0)
    assert "trusted.overlay.metacopy" not in union.upper_xattrs("f")
    for view in union.now_and_reopened():
        assert view.content(b"f") == b"new content"
        assert view.lstat(b"f").uid == 5


def test_moved_without_data(open_union: Opener) -> None:
    """rename and link of a metadata-only copy keep its way to the data, through several moves."""
    union = open_union({"d/f": File(b"data"), "e": Dir()}, **ON)
    union.chmod(b"d/f", 0o600)
    union.rename(b"d/f", b"e/g", 0)
    union.link(b"e/g", b"h")
    union.rename(b"e", b"moved", 0)
    for view in union.now_and_reopened():
        assert view.content(b"moved/g") == b"data"
        assert view.content(b"h") == b"data"
    assert "trusted.overlay.metacopy" in union.upper_xattrs("h")


@pytest.mark.parametrize("index", ["on", "off"])
def test_hard_links_of_the_lower(open_union: Opener, index: str) -> None:
    """A moved name of a linked file finds its data again."""
    union = open_union({"b/a": File(b"data"), "d/x": Link("b/a")}, index=index, **ON)
    union.rename(b"b/a", b"d/a", 0)
    for view in union.now_and_reopened():
        assert view.content(b"d/a") == b"data"
        assert view.content(b"d/x") == b"data"


def test_truncation_of_a_metadata_only_copy(open_union: Opener) -> None:
    """Shorter, longer, empty: the data that is left is the lower's."""
    for size, expected in ((4, b"some"), (12, b"some data\0\0\0"), (0, b"")):
        union = open_union({"f": File(b"some data")}, **ON)
        union.chmod(b"f", 0o600)
        union.truncate(b"f", size)
        assert union.reopen().content(b"f") == expected


def test_userxattr_writes_users_marks(open_union: Opener) -> None:
    """Whiteouts are still devices, opaque is user.overlay.opaque, nothing is trusted."""
    union = open_union({"d/f": File()}, userxattr="")
    union.unlink(b"d/f")
    union.rmdir(b"d")
    union.mkdir(b"d", 0o755)
    assert union.upper_xattrs("d") == {"user.overlay.opaque": b"y"}
    union.reopen()
    assert union.names(b"d") == []
    assert union.listxattr(b"d") == []
    union.write_file(b"d/n", b"")
    assert stat.S_ISREG(union.lstat(b"d/n").mode)
