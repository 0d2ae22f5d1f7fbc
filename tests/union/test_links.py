"""Hard links: broken by a copy-up without an index, kept with one."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from tests import trees
from tests.mounts import Layers, loop_filesystem, make_layers, scratch
from tests.trees import File, Link
from tests.union.conftest import Opener, Union, fails

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


BIG = {"a": File(b"x" * 500_000), "b": Link("a"), "d/c": Link("a"), "other": File(b"other")}


def _used(union: Union) -> int:
    """Bytes in the upper and in the index."""
    return sum(
        os.lstat(os.path.join(directory, name)).st_blocks * 512
        for top in (union.upper, union.work / "index")
        for directory, _, names in os.walk(top)
        for name in names
    )


@pytest.mark.parametrize("metacopy", ["on", "off"])
def test_removing_a_name_copies_no_data(open_union: Opener, metacopy: str) -> None:
    """By unlink, by rename over it, with its directory: the other names count down, after a remount too, and
    a write makes them one file in the upper with the right count.
    """
    union = open_union(BIG, index="on", metacopy=metacopy, redirect_dir="on")
    ino = union.lstat(b"b").ino
    union.unlink(b"d/c")
    union.rmdir(b"d")
    for view in union.now_and_reopened():
        assert (view.lstat(b"a").nlink, view.lstat(b"b").nlink) == (2, 2)
        assert view.content(b"b") == b"x" * 500_000
    union.rename(b"other", b"a", 0)
    for view in union.now_and_reopened():
        assert (view.lstat(b"b").nlink, view.lstat(b"b").ino) == (1, ino)
        assert view.content(b"a") == b"other"
    assert _used(union) < 100_000
    union.write_file(b"b", b"new")
    union.link(b"b", b"e")
    for view in union.now_and_reopened():
        assert (view.lstat(b"b").nlink, view.lstat(b"e").ino) == (2, ino)
    union.unlink(b"b")
    union.unlink(b"e")
    union = union.reopen()
    assert union.names() == [b"a"]
    assert os.listdir(union.work / "index") == []
    assert not (union.work / "nlink").exists() or os.listdir(union.work / "nlink") == []


def test_all_names_removed_without_a_copy(open_union: Opener) -> None:
    """Nothing is left but whiteouts; the open file is still there."""
    union = open_union(BIG, index="on")
    fd = union.open(b"b", os.O_RDONLY, 0)
    for left, name in ((2, b"a"), (1, b"b"), (0, b"d/c")):
        union.unlink(name)
        union.forget()
        assert union.fstatus(fd).nlink == left
    assert union.pread(fd, 10, 0) == b"x" * 10
    union.close(fd)
    assert os.listdir(union.work / "nlink") == os.listdir(union.work / "index") == []
    assert _used(union) == 0


@pytest.mark.parametrize("look", [True, False])
def test_a_removed_name_written_to(open_union: Opener, look: bool) -> None:
    """Through a descriptor: the other names show it, also those that nobody has looked up yet."""
    union = open_union(BIG, index="on")
    if look:
        union.lstat(b"b")
    fd = union.open(b"a", os.O_RDONLY, 0)
    union.unlink(b"a")
    union.fchmod(fd, 0o600)
    assert union.fstatus(fd).nlink == 2
    for view in union.now_and_reopened():
        assert (view.lstat(b"b").mode & 0o777, view.lstat(b"b").nlink) == (0o600, 2)
        assert view.lstat(b"d/c") == view.lstat(b"b")
    assert os.listdir(union.work / "nlink") == []


def test_a_removed_name_linked_again_by_descriptor(open_union: Opener) -> None:
    """It is the same file, with its other names."""
    union = open_union(BIG, index="on")
    union.unlink(b"a")
    union.link(b"b", b"a")
    for view in union.now_and_reopened():
        assert (view.lstat(b"a").nlink, view.lstat(b"a").ino) == (3, view.lstat(b"d/c").ino)


def test_the_kernel_takes_removed_names(open_union: Opener) -> None:
    """It shows the same names and contents, and goes on with them; the count is not known to it."""
    union = open_union(BIG, index="on")
    union.unlink(b"a")
    union.rename(b"other", b"b", 0)
    union.write_file(b"new", b"new")
    kernel = union.kernel_snapshot()
    assert sorted(kernel) == [b"", b"b", b"d", b"d/c", b"new"]
    assert kernel[b"d/c"].facts()["content"] == union.reopen().snapshot()[b"d/c"].facts()["content"]


def test_removing_a_name_on_a_full_disk(ground: Path) -> None:
    """A little data is not copied either where there is no room at all."""
    with loop_filesystem(ground, 8 << 20) as disk, scratch(under=ground) as lower:
        trees.build(lower, {"a": File(b"x" * 30_000), "b": Link("a")})
        layers = make_layers(disk)
        layers = Layers(lowers=(lower,), upper=layers.upper, work=layers.work, merged=layers.merged)
        union = Union(layers, {"index": "on"})
        try:
            with (layers.upper / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(b"x" * 1024):
                    pass
            union.unlink(b"a")
            assert union.lstat(b"b").nlink == 1
            os.unlink(layers.upper / "filler")
            assert union.reopen().names() == [b"b"]
        finally:
            union.close_all_layers()


def test_removing_a_name_needs_no_room(ground: Path) -> None:
    """A file larger than what is free, without and with metacopy."""
    for metacopy in ("off", "on"):
        with loop_filesystem(ground, 8 << 20) as disk, scratch(under=ground) as lower:
            trees.build(lower, {"a": File(b"x" * (16 << 20)), "b": Link("a")})
            layers = make_layers(disk)
            layers = Layers(lowers=(lower,), upper=layers.upper, work=layers.work, merged=layers.merged)
            union = Union(layers, {"index": "on", "metacopy": metacopy})
            try:
                union.unlink(b"a")
                for view in union.now_and_reopened():
                    assert view.names() == [b"b"]
                    assert view.lstat(b"b").nlink == 1
            finally:
                union.close_all_layers()
