"""Inodes that lost their name while in use: usable, however many, and gone with their last user."""

import os
import stat

import pytest

from tests.trees import Dir, File, Symlink, fifo
from tests.union.conftest import Opener
from tests.union.crowds import MANY, SHARE, Watch, many_files, many_names

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("few_descriptors")]


@pytest.mark.parametrize("of", ["upper", "lower"])
@pytest.mark.parametrize("by", ["unlink", "rename"])
def test_removed_files_stay_open_however_many(open_union: Opener, of: str, by: str) -> None:
    """Beyond what is held by descriptor they have a name in the work directory, which nobody sees: no link
    is counted, no further name can be made, and it goes with the last user.
    """
    union = open_union(many_files()) if of == "lower" else open_union(upper=many_files())
    watch = Watch()
    handles = {}
    for name in many_names():
        handles[name] = union.open(name, os.O_RDWR, 0)
        union.pwrite(handles[name], b"L", 0)  # a lower's is copied up
        if by == "unlink":
            union.unlink(name)
        else:
            union.write_file(b"new", b"new")
            union.rename(b"new", name, 0)
        watch.check()
    assert len(union.leftovers()) >= MANY - 2 * SHARE
    for name, fd in handles.items():
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"Lower " + name
        union.fchmod(fd, 0o640)
        union.pwrite(fd, b"!", 0)
        assert union.pread(fd, 1, 0) == b"!"
    watch.check()
    for fd in handles.values():
        union.close(fd)
    union.forget()
    assert union.leftovers() == []
    assert union.names() == ([] if by == "unlink" else sorted(many_names()))


def test_a_lower_file_removed_while_open_is_copied_up_beyond_its_share(open_union: Opener) -> None:
    union = open_union(many_files())
    watch = Watch()
    handles = {name: union.open(name, os.O_RDONLY, 0) for name in many_names()}
    for name in many_names():
        union.unlink(name)
    for name, fd in handles.items():
        union.fchmod(fd, 0o611)
        watch.check()
        assert union.fstatus(fd).mode & 0o777 == 0o611
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"lower " + name
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


def test_hard_links_count_right_beside_a_hidden_name(open_union: Opener) -> None:
    """One of two names of an open file goes, then the other; the other was never looked up before."""
    union = open_union(upper={"keep": File(b"x")})
    for name in many_names():
        union.write_file(name, b"of " + name)
        union.link(name, b"other-" + name)
    union.reopen()
    handles = {name: union.open(name, os.O_RDWR, 0) for name in many_names()}
    for name, fd in handles.items():
        union.unlink(name)
        assert union.fstatus(fd).nlink == 1
    for name, fd in handles.items():
        assert union.lstat(b"other-" + name).nlink == 1
        union.unlink(b"other-" + name)
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == b"of " + name
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


def test_nameless_files_beyond_their_share_can_get_a_name(open_union: Opener) -> None:
    union = open_union({"d": Dir()})
    watch = Watch()
    parent = union.overlay.root
    made = [union.overlay.tmpfile(parent, os.O_RDWR, 0o644, union.caller) for _ in range(MANY)]
    watch.check()
    for number, (node, handle) in enumerate(made):
        union.overlay.write(node, 0, b"%d" % number)
        assert union.overlay.getattr(node).nlink == 0
        if number % 2:
            union.overlay.link(node, parent, b"named%d" % number)
            assert union.overlay.getattr(node).nlink == 1
        union.overlay.release(handle)
        union.overlay.forget(node)
    assert union.leftovers() == []
    assert union.content(b"named%d" % (MANY - 1)) == b"%d" % (MANY - 1)
    watch.check()


@pytest.mark.parametrize("of", ["upper", "lower"])
def test_removed_directories_stay_usable_however_many(open_union: Opener, of: str) -> None:
    tree = {os.fsdecode(name): Dir(mode=0o750) for name in many_names()}
    union = open_union(tree) if of == "lower" else open_union(upper=tree)
    watch = Watch()
    handles = {name: union.open(name, os.O_RDONLY | os.O_DIRECTORY, 0) for name in many_names()}
    for name, fd in handles.items():
        union.fchmod(fd, 0o710)
        union.rmdir(name)
        watch.check()
    for fd in handles.values():
        status = union.fstatus(fd)
        assert (status.mode & 0o777, status.nlink) == (0o710, 0)
        union.fchmod(fd, 0o700)
        union.close(fd)
    union.forget()
    assert union.leftovers() == []


LOWER = {"d/f": File(b"old content"), "d/l": Symlink("f"), "d/p": fifo(), "d/sub": Dir()}


def test_an_open_file_outlives_its_name(open_union: Opener) -> None:
    """Lower or upper: readable, writable, nlink 0, changes its metadata; nothing is left after the close."""
    union = open_union(LOWER)
    union.write_file(b"up", b"upper")
    for path, content in ((b"d/f", b"old content"), (b"up", b"upper")):
        fd = union.open(path, os.O_RDWR, 0)
        union.unlink(path)
        assert union.fstatus(fd).nlink == 0
        assert union.pread(fd, 100, 0) == content
        union.pwrite(fd, b"more", 0)
        union.ftruncate(fd, 4)
        union.fchmod(fd, 0o600)
        assert union.pread(fd, 100, 0) == b"more"
        assert union.fstatus(fd).mode == stat.S_IFREG | 0o600
        union.forget()
        assert union.pread(fd, 100, 0) == b"more"
        union.close(fd)
    union = union.reopen()
    assert union.names() == [b"d"]
    assert union.names(b"d") == [b"l", b"p", b"sub"]
    assert union.leftovers() == []
