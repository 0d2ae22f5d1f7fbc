"""The stack of one mount: which numbers it shows, and what it lets nobody do without an upper."""

import errno
import os

import pytest

from overlayfs_py.union.node import Directory
from overlayfs_py.union.stack import Stack
from tests.mounts import LowerLayers
from tests.oracle.union_side import union_options
from tests.trees import File
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]


def test_numbers_of_the_first_layers_file_system_are_shown_as_they_are(open_union: Opener) -> None:
    """So that most answers cost no arithmetic, and find -inum works on the layers as well."""
    union = open_union({"f": File()})
    assert union.lstat(b"f").ino == (union.layers.lowers[0] / "f").stat().st_ino
    union.write_file(b"new", b"")
    assert union.lstat(b"new").ino == (union.upper / "new").stat().st_ino


def test_without_an_upper_what_needs_one_is_erofs(open_union: Opener) -> None:
    layers = open_union({"f": File()}).layers
    stack = Stack(union_options(LowerLayers(lowers=layers.lowers, merged=layers.merged), {}))
    assert stack.read_only
    assert stack.link_lowers  # nothing can be copied up, so lower hard links are one node
    assert not stack.indexing
    with fails(errno.EROFS):
        stack.require_upper()
    with fails(errno.EROFS):
        _ = stack.work
    stack.close()
    stack.close()


@pytest.mark.parametrize(
    ("redirect_dir", "followed", "made"),
    [("on", True, True), ("off", True, False), ("follow", True, False), ("nofollow", False, False)],
)
def test_what_redirect_dir_says(open_union: Opener, redirect_dir: str, followed: bool, made: bool) -> None:
    """off still follows those there are, as the kernel does (redirect_always_follow)."""
    layers = open_union({"f": File()}).layers
    stack = Stack(union_options(layers, {"redirect_dir": redirect_dir}))
    assert (stack.follow_redirects, stack.make_redirects) == (followed, made)
    stack.close()


def test_everything_spared_is_opened_again(open_union: Opener) -> None:
    """Caches can be emptied whenever no operation runs; False: there was nothing to gain."""
    union = open_union({"d/f": File(b"f")})
    assert union.content(b"d/f") == b"f"
    assert union.overlay.spare_descriptors()
    assert not union.overlay.spare_descriptors()
    assert union.content(b"d/f") == b"f"


def test_counts_of_copies(open_union: Opener) -> None:
    """Inodes and bytes, directories included, for `overlayfs-pyctl stats`."""
    union = open_union({"d/f": File(b"12345"), "g": File(b"1")})
    assert union.overlay.copied_up == (0, 0)
    fd = union.open(b"d/f", os.O_WRONLY, 0)
    union.close(fd)
    assert union.overlay.copied_up == (2, 5)
    union.chmod(b"d/f", 0o600)
    assert union.overlay.copied_up == (2, 5)


def test_a_directory_node_alone_needs_no_stack() -> None:
    """The tables are the stack's, so that nodes stay small."""
    assert Directory(None, b"").index is None
