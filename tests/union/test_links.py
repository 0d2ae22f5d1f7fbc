"""Hard links: broken by a copy-up without an index, kept with one."""

import errno
import os

import pytest

from tests.trees import File, Link
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]

LOWER = {"a": File(b"old"), "b": Link("a"), "d/c": Link("a")}


def test_with_an_index_all_names_see_a_write(open_union: Opener) -> None:
    """One write through one name; st_ino and st_nlink stay for all, after a remount too."""
    union = open_union(LOWER, index="on")
    before = [union.lstat(name) for name in (b"a", b"b", b"d/c")]
    assert {(status.ino, status.nlink) for status in before} == {(before[0].ino, 3)}
    union.write_file(b"b", b"new")
    for view in union.now_and_reopened():
        for name in (b"a", b"b", b"d/c"):
            assert view.content(name) == b"new"
            assert (view.lstat(name).ino, view.lstat(name).nlink) == (before[0].ino, 3)


def test_with_an_index_names_not_copied_up_follow(open_union: Opener) -> None:
    """Only the touched name is in the upper; the others are found through the index."""
    union = open_union(LOWER, index="on")
    union.chmod(b"a", 0o600)
    assert sorted(os.listdir(union.upper)) == ["a"]
    assert union.reopen().lstat(b"d/c").mode & 0o777 == 0o600


def test_without_an_index_the_other_names_keep_the_old_file(open_union: Opener) -> None:
    """The documented behaviour of index=off: the link is broken."""
    union = open_union(LOWER, index="off")
    union.write_file(b"b", b"new")
    union = union.reopen()
    assert (union.content(b"a"), union.content(b"b"), union.content(b"d/c")) == (b"old", b"new", b"old")
    assert (union.lstat(b"a").nlink, union.lstat(b"b").nlink) == (3, 1)


@pytest.mark.parametrize("index", ["on", "off"])
def test_links_made_through_the_union(open_union: Opener, index: str) -> None:
    """A new link shares the inode with its source, whether that was lower or upper."""
    union = open_union({"f": File(b"f")}, index=index)
    union.link(b"f", b"g")
    union.link(b"g", b"h")
    for view in union.now_and_reopened():
        states = [view.lstat(name) for name in (b"f", b"g", b"h")]
        assert {(status.ino, status.nlink) for status in states} == {(states[0].ino, 3)}
    union = union.reopen()
    union.write_file(b"h", b"new")
    assert union.content(b"f") == b"new"


def test_unlink_counts_down(open_union: Opener) -> None:
    """Lower names, the copied-up name and a new link each count once; the last removal empties the index."""
    union = open_union(LOWER, index="on")
    union.chmod(b"a", 0o600)
    union.link(b"a", b"new")
    assert union.lstat(b"b").nlink == 4
    for left, name in ((3, b"a"), (2, b"d/c"), (1, b"new")):
        union.unlink(name)
        union = union.reopen()
        assert union.lstat(b"b").nlink == left
    union.unlink(b"b")
    assert union.names() == [b"d"]
    union = union.reopen()
    assert os.listdir(union.work / "index") == []


def test_a_removed_name_linked_again(open_union: Opener) -> None:
    """link over a whiteout of the same file."""
    union = open_union(LOWER, index="on")
    union.unlink(b"b")
    union.link(b"a", b"b")
    union = union.reopen()
    assert union.lstat(b"b") == union.lstat(b"a")
    assert union.lstat(b"a").nlink == 3


def test_rename_over_another_name_of_the_file(open_union: Opener) -> None:
    """rename(2) of two names of one inode does nothing at all."""
    union = open_union(LOWER, index="on")
    union.rename(b"a", b"b", 0)
    assert union.names() == [b"a", b"b", b"d"]
    assert os.listdir(union.upper) == []


def test_replacing_a_name_counts_down(open_union: Opener) -> None:
    """Also when the moved name was forgotten in between, and looked up again."""
    union = open_union({"a": File(b"old"), "b": Link("a"), "other": File()}, index="on")
    union.rename(b"a", b"moved", 0)
    union.forget()
    union.rename(b"other", b"moved", 0)
    for view in union.now_and_reopened():
        assert view.lstat(b"b").nlink == 1


def test_a_link_over_a_name_is_refused(open_union: Opener) -> None:
    """EEXIST for lower names; EPERM for directories, as the kernel says."""
    union = open_union(LOWER)
    with fails(errno.EEXIST):
        union.link(b"a", b"b")
    with fails(errno.EPERM):
        union.link(b"d", b"e")


def test_links_in_two_layers_are_two_files(open_union: Opener) -> None:
    """The upper lower's copy and the lower lower's are different inodes."""
    union = open_union({"a": File(b"top"), "b": Link("a")}, LOWER, index="on")
    assert union.lstat(b"a").nlink == 2
    assert union.lstat(b"d/c").ino != union.lstat(b"a").ino
    union.write_file(b"a", b"new")
    assert union.content(b"b") == b"new"
    assert union.content(b"d/c") == b"old"
