"""Copy-up: everything a file is comes along, in one step, and nothing is ever wider than it was."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union import copyup
from tests import trees
from tests.mounts import Layers, loop_filesystem
from tests.trees import Dir, File, Link, Symlink
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]

ACL = trees.acl(("u", 6), ("user", 1000, 6), ("g", 4), ("m", 6), ("o", 0))
EVERYTHING = {b"user.k": b"v", b"trusted.t": b"", trees.CAPABILITY: trees.NET_RAW, trees.ACL_ACCESS: ACL}


def test_copying_up_reads_without_a_trace(open_union: Opener) -> None:
    """The layer below is as it was, its access times too, as in the kernel (ovl_path_open)."""
    union = open_union({"f": File(b"old")})
    lower = union.layers.lowers[0] / "f"
    os.utime(lower, ns=(1, 2))
    union.write_file(b"f", b"new")
    assert (lower.stat().st_atime_ns, lower.stat().st_mtime_ns) == (1, 2)


def test_blocks_that_cannot_be_shared_are_asked_for_once(
    open_union: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    union = open_union({name: File(b"old") for name in "abc"})
    asked = []

    def watch(src_fd: int, dst_fd: int, size: int, *, clone: bool, dense: bool) -> bool:
        asked.append(clone)
        copy_data(src_fd, dst_fd, size, clone=clone, dense=dense)
        return len(asked) < 2

    monkeypatch.setattr(copyup, "copy_data", watch)
    for name in (b"a", b"b", b"c"):
        union.touch(name)
    assert asked == [True, True, False]


def test_parents_are_copied_up_first_and_keep_their_times(open_union: Opener) -> None:
    """Each directory on the way is the lower's in mode, owner, xattrs, default ACL and mtime."""
    default = {trees.ACL_DEFAULT: ACL, b"user.d": b"v"}
    tree = {
        "a": Dir(mode=0o2711, uid=3, gid=4, xattrs=default, mtime_ns=111),
        "a/b": Dir(mode=0o1700, mtime_ns=222_000_000_001),
        "a/b/f": File(b"f", mode=0o604),
    }
    union = open_union(tree)
    before = union.snapshot()
    union.setxattr(b"a/b/f", b"user.x", b"", 0)
    after = union.snapshot()
    for path in (b"", b"a", b"a/b"):
        assert after[path] == before[path], path
    assert stat.S_IMODE((union.upper / "a/b/f").stat().st_mode) == 0o604


def test_holes_stay_holes(open_union: Opener) -> None:
    """A sparse file does not grow on disk: front, middle and end holes."""
    union = open_union({"f": File(b"end", holes=64 << 20)})
    lower = union.layers.lowers[0] / "f"
    os.truncate(lower, 128 << 20)
    union = union.reopen()
    union.chmod(b"f", 0o600)
    upper = union.upper / "f"
    assert upper.stat().st_size == 128 << 20
    assert upper.stat().st_blocks <= lower.stat().st_blocks + 8
    assert union.content(b"f")[64 << 20 : (64 << 20) + 3] == b"end"


def test_looking_does_not_copy_up(open_union: Opener) -> None:
    """stat, read, readdir, getxattr, readlink, access and open for reading leave the upper empty."""
    union = open_union({"d/f": File(b"f", xattrs={b"user.k": b"v"}), "d/l": Symlink("f")})
    union.snapshot()
    union.close(union.open(b"d/f", os.O_RDONLY, 0))
    union.access(b"d/f", os.W_OK)
    assert os.listdir(union.upper) == []


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDONLY | os.O_TRUNC])
def test_opening_for_writing_copies_up(open_union: Opener, flags: int) -> None:
    """Before the first write, as the kernel does."""
    union = open_union({"f": File(b"old")})
    union.close(union.open(b"f", flags, 0))
    assert (union.upper / "f").read_bytes() == (b"" if flags & os.O_TRUNC else b"old")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_while_copying_reaches_the_caller(
    open_union: Opener, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The caller gets the errno, the file is as before, no temporary name stays, and a later try works."""
    union = open_union({"d/f": File(b"old")})

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(copyup, "copy_data", fail)
        with fails(code):
            union.open(b"d/f", os.O_RDWR, 0)
    assert union.leftovers() == []
    assert not (union.upper / "d/f").exists()
    assert union.content(b"d/f") == b"old"
    union.write_file(b"d/f", b"new")
    assert union.content(b"d/f") == b"new"


@pytest.mark.parametrize("step", ["rename", "fsync", "setxattr", "utime", "chown", "chmod", "link"])
def test_a_failing_system_call_leaves_nothing(
    open_union: Opener, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """EIO from any call of the way reaches the caller or changes nothing; the tree is old or new."""
    union = open_union(
        {"a": File(b"old", mode=0o640, uid=5, xattrs={b"user.k": b"v"}), "b": Link("a")}, index="on"
    )
    before = union.snapshot()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, step, fail)
        with contextlib.suppress(OSError):
            union.touch(b"a")
    assert union.leftovers() == []
    after = union.reopen().snapshot()
    assert {
        path: (entry.sha, entry.xattrs, entry.status.mode, entry.status.uid) for path, entry in after.items()
    } == {
        path: (entry.sha, entry.xattrs, entry.status.mode, entry.status.uid) for path, entry in before.items()
    }


def test_a_full_upper(open_union: Opener, ground: Path) -> None:
    """A real ENOSPC half-way: the file stays the lower's, no temporary name keeps the space."""
    union = open_union({"small": File(b"s"), "big": File(os.urandom(12 << 20), holes=1)})
    union.close_all_layers()
    with loop_filesystem(ground, 8 << 20) as disk:
        for name in ("upper", "work"):
            (disk / name).mkdir()
        lowers = union.layers.lowers
        moved = Layers(lowers=lowers, upper=disk / "upper", work=disk / "work", merged=union.layers.merged)
        full = Union(moved, {"index": "off"})
        try:
            free = os.statvfs(disk).f_bfree
            with fails(errno.ENOSPC):
                full.open(b"big", os.O_RDWR, 0)
            assert full.leftovers() == []
            assert full.content(b"big") == (lowers[0] / "big").read_bytes()
            assert os.statvfs(disk).f_bfree >= free - 64
            full.write_file(b"small", b"fits")
        finally:
            full.close_all_layers()


def test_a_stack_on_a_full_disk(open_union: Opener, ground: Path) -> None:
    """It opens, finds the same abilities as when there was room, and what is in the way can be removed."""
    union = open_union({"d/lower": File(b"x")})
    union.close_all_layers()
    with loop_filesystem(ground, 8 << 20) as disk:
        for name in ("upper", "work"):
            (disk / name).mkdir()
        lowers = union.layers.lowers
        moved = Layers(lowers=lowers, upper=disk / "upper", work=disk / "work", merged=union.layers.merged)
        full = Union(moved, {})
        try:
            able = full.overlay.capabilities
            full.mkdir(b"d/new", 0o755)
            fd = full.open(b"filler", os.O_CREAT | os.O_WRONLY, 0o600)
            with fails(errno.ENOSPC):
                for _ in iter(lambda: full.write(fd, bytes(1 << 16)), 0):
                    pass
            full.close_all()
            full.reopen()
            assert full.overlay.capabilities == able
            full.unlink(b"filler")
            full.rmdir(b"d/new")
            full.unlink(b"d/lower")
            assert full.names(b"d") == []
            full.rmdir(b"d")
            assert full.names() == []
        finally:
            full.close_all_layers()


def test_three_phases_by_hand(open_union: Opener) -> None:
    """copy_up gives the work left; transfer moves it, commit makes it the upper."""
    union = open_union({"f": File(b"data" * 1000)})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    work = union.overlay.copy_up(node)
    assert work is not None
    assert work.size == 4000
    assert not (union.upper / "f").exists()
    work.transfer()
    assert not (union.upper / "f").exists()
    work.commit()
    assert (union.upper / "f").read_bytes() == b"data" * 1000
    assert union.overlay.copy_up(node) is None


def test_an_aborted_copy_up_leaves_nothing(open_union: Opener) -> None:
    """abort is idempotent, before and after the transfer."""
    union = open_union({"f": File(b"data")})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    for transfer in (False, True):
        work = union.overlay.copy_up(node)
        assert work is not None
        if transfer:
            work.transfer()
        work.abort()
        work.abort()
        assert union.leftovers() == []
        assert os.listdir(union.upper) == []


def test_removed_while_it_was_copied(open_union: Opener) -> None:
    """The name is gone before the commit: nothing comes back under it."""
    union = open_union({"f": File(b"data")})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    work = union.overlay.copy_up(node)
    assert work is not None
    work.transfer()
    union.unlink(b"f")
    work.commit()
    assert not union.exists(b"f")
    assert not union.reopen().exists(b"f")


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
