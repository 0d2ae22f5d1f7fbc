"""st_ino, d_ino and content stay what they are: over copy-up, forgetting, remount, removal while open."""

import os

import pytest

from tests import trees
from tests.trees import Dir, File, Symlink, fifo
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]

LOWER = {"d/f": File(b"old content"), "d/l": Symlink("f"), "d/p": fifo(), "d/sub": Dir()}
NAMES = (b"d/f", b"d/l", b"d/p", b"d/sub", b"d")


def _numbers(union: Union) -> dict[bytes, int]:
    return {path: entry.status.ino for path, entry in union.snapshot().items()}


@pytest.mark.parametrize("index", ["on", "off"])
def test_copy_up_keeps_st_ino(open_union: Opener, index: str) -> None:
    """Every kind of entry, at once, after forgetting everything, and after a remount."""
    union = open_union(LOWER, index=index)
    before = _numbers(union)
    for name in NAMES:
        union.chown(name, 7, 7)
    assert _numbers(union) == before
    union.forget()
    assert _numbers(union) == before
    assert _numbers(union.reopen()) == before


def test_d_ino_is_st_ino_everywhere(open_union: Opener) -> None:
    """In pure lower, merged and pure upper directories, for copied-up, new and renamed entries."""
    union = open_union(LOWER, {"d/below": File()}, redirect_dir="on")
    union.write_file(b"d/new", b"n")
    union.mkdir(b"up", 0o755)
    union.write_file(b"up/x", b"x")
    union.rename(b"d/f", b"up/f", 0)
    for view in union.now_and_reopened():
        assert all(entry.d_ino_right and entry.d_type_right for entry in view.snapshot().values())


def test_numbers_are_unique(open_union: Opener) -> None:
    """No two entries share one unless they are links."""
    union = open_union(LOWER, {"d/g": File(), "e": Dir()})
    union.write_file(b"new", b"")
    numbers = [entry.status.ino for entry in union.snapshot().values()]
    assert len(set(numbers)) == len(numbers)


def test_a_name_made_again_is_another_inode(open_union: Opener) -> None:
    """unlink and create: not the lower's number again."""
    union = open_union(LOWER)
    before = union.lstat(b"d/f").ino
    fd = union.open(b"d/f", os.O_RDONLY, 0)
    union.unlink(b"d/f")
    union.write_file(b"d/f", b"new")
    assert union.lstat(b"d/f").ino != before
    assert union.pread(fd, 100, 0) == b"old content"
    assert union.fstatus(fd).ino == before


def test_a_directory_is_one_whatever_it_is_made_of(open_union: Opener) -> None:
    """Lower, then merged by a copy-up of a child: one number; mtime moves when a child is made."""
    union = open_union(LOWER)
    before = union.lstat(b"d")
    union.chmod(b"d/f", 0o600)
    assert union.lstat(b"d") == before
    union.write_file(b"d/new", b"")
    after = union.lstat(b"d")
    assert after.ino == before.ino
    assert after.mtime_ns > trees.EPOCH_NS * 1.5
