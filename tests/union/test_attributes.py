"""A node's attributes as stat shows them: link counts, blocks, owners that the options say."""

import stat

import pytest

from overlayfs_py.options import IdRange
from tests.trees import Dir, File, Link, Symlink
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]


def test_a_merged_directory_has_one_link(open_union: Opener) -> None:
    """As the kernel: the subdirectories of a merged directory are not counted, those of others are."""
    union = open_union({"d/one": Dir(), "d/two": Dir()}, upper={"d": Dir(), "own/one": Dir()})
    assert union.lstat(b"d").nlink == 1
    assert union.lstat(b"own").nlink == 3


def test_static_nlink_is_for_every_directory(open_union: Opener) -> None:
    """fuse-overlayfs's option: find(1) must not count on subdirectories anywhere; files keep their count."""
    union = open_union({"f": File(), "g": Link("f")}, upper={"own/one": Dir()}).reopen_with(static_nlink=True)
    assert union.lstat(b"own").nlink == 1
    assert union.lstat(b"f").nlink == 2


def test_blocks_of_a_metacopy_are_its_datas(open_union: Opener) -> None:
    """The upper inode has none, but du(1) is to count what the file takes."""
    union = open_union({"f": File(b"x" * 100_000)}, metacopy="on", redirect_dir="on")
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    before = union.overlay.getattr(node).blocks
    union.chmod(b"f", 0o600)
    assert union.overlay.getattr(node).blocks == before > 0
    assert (union.upper / "f").stat().st_blocks < before


def test_owners_are_mapped(open_union: Opener) -> None:
    union = open_union({"f": File(uid=1000, gid=2000)}).reopen_with(
        uid_map=(IdRange(in_mount=0, in_layer=1000, size=1),),
        gid_map=(IdRange(in_mount=5, in_layer=2000, size=1),),
    )
    assert (union.lstat(b"f").uid, union.lstat(b"f").gid) == (0, 5)
    assert union.lstat(b"").uid == 65_534  # root has no mapping here


def test_an_override_says_owner_and_mode(open_union: Opener) -> None:
    """xattr_permissions: the real ones are the daemon's own, and count for symlinks alone. An xattr counts
    where the layer's root has one of that name.
    """
    mark = {b"user.containers.override_stat": b"1000:2000:0640"}
    root = Dir(xattrs={b"user.containers.override_stat": b"0:0:0755"})
    tree = {"": root, "f": File(xattrs=mark), "plain": File(mode=0o604), "l": Symlink("f", uid=3)}
    union = open_union(tree).reopen_with(xattr_permissions=2)
    found = union.lstat(b"f")
    assert (found.uid, found.gid, found.mode) == (1000, 2000, stat.S_IFREG | 0o640)
    assert union.lstat(b"plain").mode == stat.S_IFREG | 0o604
    assert union.lstat(b"l").uid == 3
    without = open_union({**tree, "": Dir()}).reopen_with(xattr_permissions=2)
    assert without.lstat(b"f").uid == 0


def test_a_broken_override_counts_for_nothing(open_union: Opener) -> None:
    name = b"user.containers.override_stat"
    union = open_union(
        {"": Dir(xattrs={name: b"0:0:0755"}), "f": File(mode=0o604, xattrs={name: b"x"})},
        xattr_permissions="2",
    )
    assert union.lstat(b"f").mode == stat.S_IFREG | 0o604
