"""Listing: each name once, from the topmost layer that has it, with stable cookies and right types."""

import os

import pytest

from tests.trees import Dir, File, Symlink, Whiteout, char_device, fifo, socket
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]


def test_types_of_all_kinds(open_union: Opener) -> None:
    """d_type and d_ino are lstat's, for lower and for copied-up entries."""
    kinds = {"f": File(), "d": Dir(), "l": Symlink("f"), "p": fifo(), "s": socket(), "c": char_device(1, 3)}
    union = open_union(kinds)
    for _ in range(2):
        assert all(entry.d_type_right and entry.d_ino_right for entry in union.snapshot().values())
        for name in kinds:
            union.chown(name.encode(), 1, 1)


def test_a_listing_is_a_snapshot_by_position(open_union: Opener) -> None:
    """What changes meanwhile does not move what is left to read; a new listing sees it."""
    union = open_union({f"n{number:04}": File() for number in range(500)})
    listing = union.overlay.list_dir(union.overlay.root)
    first = [entry[0] for entry in listing.entries[:250]]
    for name in first[:100]:
        union.unlink(name)
    union.write_file(b"new", b"")
    names = first + [entry[0] for entry in listing.entries[250:]]
    assert sorted(names) == [b"n%04d" % number for number in range(500)]
    assert len(union.names()) == 401


def test_repeated_listings_have_one_order(open_union: Opener) -> None:
    """Cookies stay good from one listing to the next while nothing changes."""
    union = open_union(
        {f"a{number}": File() for number in range(100)}, {f"b{number}": File() for number in range(100)}
    )
    orders = [[entry[0] for entry in union.overlay.list_dir(union.overlay.root).entries] for _ in range(3)]
    assert orders[0] == orders[1] == orders[2]


def test_names_of_any_bytes(open_union: Opener) -> None:
    """Non-UTF-8, newline, space, colon, backslash, 255 bytes: made, listed, renamed, removed."""
    names = [b"\xff\xfe", b"a\nb", b" ", b"a:b,c", b"\\", b"n" * 255, b"\xc3\xa4"]
    union = open_union({names[0]: File(b"0"), names[5]: File(b"5")})
    for name in names:
        union.write_file(name, name)
    union = union.reopen()
    assert union.names() == sorted(names)
    for name in names:
        assert union.content(name) == name
        union.rename(name, b"moved", 0)
        union.unlink(b"moved")
    assert union.reopen().names() == []


def test_a_user_may_have_wh_names(open_union: Opener) -> None:
    """A file a program calls `.wh.x` is its file: kept, listed, and it hides nothing."""
    union = open_union({"x": File(b"x")})
    union.write_file(b".wh.x", b"mine")
    for view in union.now_and_reopened():
        assert view.content(b".wh.x") == b"mine"
        assert view.names() == [b".wh.x", b"x"]


def test_ten_thousand_entries(open_union: Opener) -> None:
    """All there, once each, after removing every tenth of the lower's and adding to the upper."""
    union = open_union({f"f{number:05}": File() for number in range(10_000)})
    for number in range(0, 10_000, 10):
        union.unlink(b"f%05d" % number)
    for number in range(100):
        union.write_file(b"new%03d" % number, b"")
    names = union.names()
    assert len(names) == len(set(names)) == 9_100


def test_changes_show_at_once(open_union: Opener) -> None:
    """Every operation that makes, removes or moves a name, seen by the next listing."""
    union = open_union({"d/a": File(), "d/w": File()}, {"d/w": Whiteout(), "d/z": File()}, redirect_dir="on")
    assert union.names(b"d") == [b"a", b"w", b"z"]
    union.unlink(b"d/a")
    union.symlink(b"x", b"d/s")
    union.link(b"d/z", b"d/y")
    union.rename(b"d/w", b"d/v", 0)
    union.mkdir(b"d/m", 0o755)
    assert union.names(b"d") == [b"m", b"s", b"v", b"y", b"z"]
    union.rename(b"d", b"e", 0)
    assert union.names(b"e") == [b"m", b"s", b"v", b"y", b"z"]
    assert union.names() == [b"e"]
    assert os.path.exists(union.upper / "e")
