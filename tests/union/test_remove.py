"""Removing names: whiteouts where a lower has the name, and nothing where none has."""

import errno
import os
import stat

import pytest

from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener, fails, is_whiteout

pytestmark = [pytest.mark.root]


def test_unlink_of_a_lower_file_writes_the_kernels_whiteout(open_union: Opener) -> None:
    """A 0:0 character device in the upper, its parent copied up."""
    union = open_union({"d/f": File(b"f", mode=0o600), "d": Dir(mode=0o750, uid=5)})
    union.unlink(b"d/f")
    assert is_whiteout(union.upper / "d/f")
    assert stat.S_IMODE((union.upper / "d").stat().st_mode) == 0o750
    assert union.names(b"d") == []
    assert union.leftovers() == []


def test_unlink_of_an_upper_file_leaves_nothing(open_union: Opener) -> None:
    """No lower has the name: no whiteout is needed."""
    union = open_union()
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert os.listdir(union.upper) == []


def test_unlink_of_a_copied_up_file_leaves_a_whiteout(open_union: Opener) -> None:
    """The lower's file must not come back."""
    union = open_union({"f": File(b"old")})
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert is_whiteout(union.upper / "f")
    assert not union.reopen().exists(b"f")


def test_no_whiteout_where_a_layer_between_hides_the_name_already(open_union: Opener) -> None:
    """A lower whiteout is enough: the upper stays free of needless ones."""
    union = open_union({"f": Whiteout()}, {"f": File(b"old")})
    union.write_file(b"f", b"new")
    union.unlink(b"f")
    assert not union.exists(b"f")
    assert os.listdir(union.upper) == []


def test_rmdir_of_a_directory_full_of_whiteouts(open_union: Opener) -> None:
    """Empty in the merged view is empty; the upper's whiteouts go with it."""
    union = open_union({"d/a": File(), "d/b": File()})
    union.unlink(b"d/a")
    with fails(errno.ENOTEMPTY):
        union.rmdir(b"d")
    union.unlink(b"d/b")
    union.rmdir(b"d")
    assert is_whiteout(union.upper / "d")
    assert union.leftovers() == []


def test_kernel_and_union_agree_on_what_removal_left(open_union: Opener) -> None:
    """The upper after removals, mounted by the kernel, is the tree the union shows."""
    union = open_union({"d/a": File(), "d/b": File(), "e/f": File()}, {"d/c": File(), "e": Dir()})
    union.unlink(b"d/a")
    union.unlink(b"d/c")
    union.unlink(b"e/f")
    union.rmdir(b"e")
    ours = set(union.snapshot())
    assert set(union.kernel_snapshot()) == ours == {b"", b"d", b"d/b"}
