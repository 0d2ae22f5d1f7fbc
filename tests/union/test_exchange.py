"""Exchanging two names: both kinds change places, with renameat2's flags and without."""

import pytest

from tests.rawcalls import RENAME_EXCHANGE
from tests.trees import File, Symlink
from tests.union.conftest import Opener, is_whiteout

pytestmark = [pytest.mark.root]


LOWER = {"d/f": File(b"f"), "d/sub/x": File(b"x"), "e/g": File(b"g"), "l": Symlink("d")}


def test_exchange_of_lower_files(open_union: Opener) -> None:
    """Both are copied up and neither leaves a whiteout."""
    union = open_union(LOWER)
    union.rename(b"d/f", b"e/g", RENAME_EXCHANGE)
    union = union.reopen()
    assert union.content(b"d/f") == b"g"
    assert union.content(b"e/g") == b"f"
    assert not is_whiteout(union.upper / "d/f")


def test_exchange_of_a_directory_with_a_file(open_union: Opener) -> None:
    """With redirects, a merged directory and a file change places."""
    union = open_union(LOWER, redirect_dir="on")
    union.rename(b"d", b"e/g", RENAME_EXCHANGE)
    union = union.reopen()
    assert union.content(b"d") == b"g"
    assert union.content(b"e/g/sub/x") == b"x"


def test_exchange_of_a_pure_upper_directory_over_a_merged_place(open_union: Opener) -> None:
    """A directory that takes a lower directory's place must not merge with it."""
    union = open_union(LOWER, redirect_dir="on")
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/n", b"n")
    union.rename(b"new", b"d", RENAME_EXCHANGE)
    union = union.reopen()
    assert union.names(b"d") == [b"n"]
    assert union.names(b"new") == [b"f", b"sub"]
