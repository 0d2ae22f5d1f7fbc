"""A directory's index: which names of its parts show, and which hide others."""

import stat

import pytest

from overlayfs_py.syscalls import dirents
from overlayfs_py.union import building, listing
from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize("form", ["device", "xattr", "aufs"])
def test_every_form_hides_the_name_below(open_union: Opener, form: str) -> None:
    """0:0 device, empty file with overlay.whiteout, `.wh.NAME`: each hides and is not seen."""
    union = open_union(
        {"d/f": Whiteout(form=form), "d/sub": Whiteout(form=form), "d/own": File(b"own")},
        {"d/f": File(b"f"), "d/sub/x": File(b"x"), "d/kept": File(b"kept")},
    )
    assert union.names(b"d") == [b"kept", b"own"]
    assert not union.exists(b"d/f")
    assert not union.exists(b"d/sub/x")


@pytest.mark.parametrize("form", ["device", "xattr", "aufs"])
def test_a_whiteout_hides_layers_below_not_beside_or_above(open_union: Opener, form: str) -> None:
    """What a layer above has under the name shows; what two layers below have does not."""
    union = open_union(
        {"f": File(b"top")},
        {"f": Whiteout(form=form), "g": Whiteout(form=form)},
        {"f": File(b"low"), "g": File()},
    )
    assert union.content(b"f") == b"top"
    assert union.names() == [b"f"]


def test_an_aufs_whiteout_and_a_file_of_one_layer(open_union: Opener) -> None:
    """`.wh.f` beside f in one layer: f is that layer's, the whiteout is for those below."""
    union = open_union({"d/f": File(b"new"), "d/.wh.f": File()}, {"d/f": File(b"old")})
    assert union.content(b"d/f") == b"new"
    assert union.names(b"d") == [b"f"]


def test_a_whiteout_of_nothing_is_not_seen(open_union: Opener) -> None:
    """A whiteout whose name no lower has is no entry either."""
    union = open_union({"d/ghost": Whiteout(), "d/x": File()}, {"d/y": File()})
    assert union.names(b"d") == [b"x", b"y"]
    assert not union.exists(b"d/ghost")


def test_aufs_meta_names_are_hidden(open_union: Opener) -> None:
    """`.wh..wh.plnk` and its like in a lower are AUFS's own."""
    union = open_union({".wh..wh.plnk": Dir(), ".wh..wh.aufs": File(), "x": File()})
    assert union.names() == [b"x"]


def test_layers_merge_and_the_topmost_counts(open_union: Opener) -> None:
    """A name in three layers is one entry, with the type of the topmost."""
    union = open_union(
        {"d/a": File(b"1"), "d/n": Dir()},
        {"d/a": File(b"2"), "d/b": File(b"2"), "d/n": File()},
        {"d/c": File(b"3")},
    )
    assert union.names(b"d") == [b"a", b"b", b"c", b"n"]
    assert union.content(b"d/a") == b"1"
    assert stat.S_ISDIR(union.lstat(b"d/n").mode)


def test_a_file_above_a_directory_hides_it_whole(open_union: Opener) -> None:
    """And a directory above a file does not merge with directories below that file."""
    union = open_union({"x": File(b"file")}, {"x/in": File()})
    assert union.content(b"x") == b"file"
    union = open_union({"x/top": File()}, {"x": File()}, {"x/bottom": File()})
    assert union.names(b"x") == [b"top"]


@pytest.fixture
def huge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred names make a directory that is not listed at once."""
    monkeypatch.setattr(listing, "_AT_ONCE", 1)
    monkeypatch.setattr(building, "_STEP", 50)
    monkeypatch.setattr(dirents, "_SMALL_BUFFER_SIZE", 2048)


@pytest.mark.usefixtures("huge")
def test_a_directory_is_listed_a_little_at_a_time(open_union: Opener) -> None:
    """A step ends after so many names, so that others are answered in between; what all steps
    together find is what a listing at once finds.
    """
    union = open_union({f"l{number}": File() for number in range(500)}, upper={"u": File()})
    overlay = union.overlay
    work = overlay.listing_work(overlay.root)
    assert work is not None
    assert not overlay.has_names(overlay.root)
    assert sum(1 for _ in work) >= 2
    assert overlay.has_names(overlay.root)
    assert len(overlay.list_dir(overlay.root).entries) == 501
    assert overlay.listing_work(overlay.root) is None


@pytest.mark.usefixtures("huge")
def test_names_are_found_before_all_are_listed(open_union: Opener) -> None:
    """Each by itself, by the rules of a listing: whiteouts hide, directories merge."""
    many = {f"l{number}": File() for number in range(3000)}
    union = open_union(
        {**many, "gone": Whiteout(), "d/a": File()}, {"gone": File(), "d/b": File(), "low": File(b"low")}
    )
    assert union.content(b"low") == b"low"
    assert not union.exists(b"gone")
    assert not union.exists(b"nothing")
    assert not union.overlay.has_names(union.overlay.root)
    assert union.names(b"d") == [b"a", b"b"]


def test_a_name_removed_over_a_lower_is_remembered(open_union: Opener) -> None:
    """The upper's whiteout knows whether it hides anything: only then a new directory must be opaque."""
    union = open_union({"low": Dir()}, upper={"low": Whiteout(), "none": Whiteout()})
    for name in (b"low", b"none"):
        union.mkdir(name, 0o755)
    assert "trusted.overlay.opaque" in union.upper_xattrs("low")
    assert union.reopen().names() == [b"low", b"none"]
