"""Attributes: changed on the upper inode, in an order in which none undoes another."""

import errno
import os

import pytest

from overlayfs_py.options import IdRange
from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union import copyup
from overlayfs_py.union.attr import NOW, AttrChanges
from tests.trees import Dir, File, Symlink
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]


ON = {"metacopy": "on", "redirect_dir": "on"}


def test_truncation_of_a_metadata_only_copy(open_union: Opener) -> None:
    """Shorter, longer, empty: the data that is left is the lower's."""
    for size, expected in ((4, b"some"), (12, b"some data\0\0\0"), (0, b"")):
        union = open_union({"f": File(b"some data")}, **ON)
        union.chmod(b"f", 0o600)
        union.truncate(b"f", size)
        assert union.reopen().content(b"f") == expected


def test_truncation_copies_no_data_it_drops(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """O_TRUNC of a large lower file moves no byte."""
    union = open_union({"f": File(b"x" * 100_000)})
    sizes = []

    def watch(src_fd: int, dst_fd: int, size: int, **hints: bool) -> bool:
        sizes.append(size)
        return copy_data(src_fd, dst_fd, size, **hints)

    monkeypatch.setattr(copyup, "copy_data", watch)
    union.close(union.open(b"f", os.O_WRONLY | os.O_TRUNC, 0))
    assert sum(sizes) == 0
    assert union.content(b"f") == b""


def test_everything_at_once(open_union: Opener) -> None:
    """Size, owner, mode and times in one call: chown clears set-id bits and writing moves mtime, so the mode
    and the times come after them.
    """
    union = open_union({"f": File(b"some data")})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    changes = AttrChanges(mode=0o6750, uid=5, gid=6, size=4, atime_ns=11, mtime_ns=22)
    union.overlay.setattr(node, changes)
    for view in union.now_and_reopened():
        found = view.lstat(b"f")
        assert (found.mode & 0o7777, found.uid, found.gid, found.mtime_ns) == (0o6750, 5, 6, 22)
        assert view.content(b"f") == b"some"


@pytest.mark.parametrize("name", ["size", "uid", "gid", "mode", "atime_ns", "mtime_ns"])
def test_one_attribute_leaves_the_others(open_union: Opener, name: str) -> None:
    """Of a lower file: what comes along by the copy-up is what it had."""
    union = open_union({"f": File(b"some data", mode=0o640, uid=7, gid=8, mtime_ns=123)})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    before = union.overlay.getattr(node)
    after = union.overlay.setattr(node, AttrChanges(**{name: 4}))
    same = {"mode", "uid", "gid", "size", "atime_ns", "mtime_ns", "ino", "nlink"} - {name}
    if name == "size":
        same -= {"mtime_ns", "atime_ns"}
    assert {key: getattr(after, key) for key in same} == {key: getattr(before, key) for key in same}
    assert getattr(after, name) & 0o7777 == 4


@pytest.mark.parametrize(
    ("path", "changes", "code"),
    [
        (b"d", AttrChanges(size=0), errno.EISDIR),
        (b"l", AttrChanges(size=0), errno.EINVAL),
        (b"f", AttrChanges(size=-1), errno.EINVAL),
    ],
)
def test_refused_before_anything_is_copied_up(
    open_union: Opener, path: bytes, changes: AttrChanges, code: int
) -> None:
    union = open_union({"f": File(b"data"), "d": Dir(), "l": Symlink("f")})
    node = union.overlay.lookup(union.overlay.root, path)
    assert node is not None
    with fails(code):
        union.overlay.setattr(node, changes)
    assert os.listdir(union.upper) == []


def test_an_owner_without_a_mapping_is_refused(open_union: Opener) -> None:
    """EOVERFLOW, as the kernel's idmapped mounts."""
    union = open_union({"f": File()}).reopen_with(uid_map=(IdRange(in_mount=0, in_layer=0, size=10),))
    with fails(errno.EOVERFLOW):
        union.chown(b"f", 10, -1)
    assert os.listdir(union.upper) == []


def test_now_is_the_file_systems_now(open_union: Opener) -> None:
    """A time that nobody chose is the clock's that stamps writes, so make(1) sees no file of the future."""
    union = open_union({"f": File(mtime_ns=1)})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    union.overlay.setattr(node, AttrChanges(atime_ns=NOW, mtime_ns=NOW))
    (union.upper / "later").touch()
    found = union.overlay.getattr(node)
    assert 1 < found.mtime_ns <= (union.upper / "later").stat().st_mtime_ns


def test_overrides_are_written_and_the_real_owner_stays(open_union: Opener) -> None:
    """xattr_permissions: who mounts without privileges may chown all the same."""
    union = open_union({"f": File(b"x", mode=0o644)}).reopen_with(xattr_permissions=2)
    union.chown(b"f", 1000, 2000)
    union.chmod(b"f", 0o4711)
    found = union.lstat(b"f")
    assert (found.uid, found.gid, found.mode & 0o7777) == (1000, 2000, 0o4711)
    real = (union.upper / "f").stat()
    assert (real.st_uid, real.st_gid) == (os.geteuid(), os.getegid())
    assert union.upper_xattrs("f")["user.containers.override_stat"] == b"1000:2000:04711"


def test_a_symlink_is_not_followed(open_union: Opener) -> None:
    """Owner and times of a symlink are its own."""
    union = open_union({"l": Symlink("f"), "f": File(mtime_ns=77)})
    union.chown(b"l", 5, 6)
    union.utimens(b"l", 1, 2, False)
    assert (union.lstat(b"l").uid, union.lstat(b"l").mtime_ns) == (5, 2)
    assert (union.lstat(b"f").uid, union.lstat(b"f").mtime_ns) == (0, 77)
