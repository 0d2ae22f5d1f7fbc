"""Redirects: where a moved directory or metacopy file finds its lower parts."""

import errno

import pytest

from tests.trees import Dir, File, Link, Symlink
from tests.union.conftest import Opener, fails, is_whiteout

pytestmark = [pytest.mark.root]


LOWER = {"d/f": File(b"f"), "d/sub/x": File(b"x"), "e/g": File(b"g"), "l": Symlink("d")}


def test_a_directory_in_its_parent_gets_a_relative_redirect(open_union: Opener) -> None:
    """The mark is the old name alone; the content follows, a whiteout stays."""
    union = open_union(LOWER, redirect_dir="on")
    union.rename(b"d", b"moved", 0)
    assert union.upper_xattrs("moved")["trusted.overlay.redirect"] == b"d"
    assert is_whiteout(union.upper / "d")
    union = union.reopen()
    assert union.names(b"moved") == [b"f", b"sub"]
    assert union.content(b"moved/sub/x") == b"x"


def test_a_directory_into_another_gets_an_absolute_redirect(open_union: Opener) -> None:
    """The mark is the path from the root; a second move keeps it."""
    union = open_union(LOWER, redirect_dir="on")
    union.rename(b"d/sub", b"e/sub", 0)
    assert union.upper_xattrs("e/sub")["trusted.overlay.redirect"] == b"/d/sub"
    union.rename(b"e/sub", b"there", 0)
    assert union.upper_xattrs("there")["trusted.overlay.redirect"] == b"/d/sub"
    assert union.reopen().content(b"there/x") == b"x"


def test_a_moved_directory_inside_a_moved_directory(open_union: Opener) -> None:
    """Each redirect is followed from where the lower's names are."""
    union = open_union(LOWER, redirect_dir="on")
    union.rename(b"d/sub", b"d/sub2", 0)
    union.rename(b"d", b"e/d2", 0)
    union.rename(b"e/d2/sub2", b"deep", 0)
    union = union.reopen()
    assert union.content(b"deep/x") == b"x"
    assert union.names(b"e/d2") == [b"f"]
    assert union.names() == [b"deep", b"e", b"l"]


def test_a_name_made_again_after_its_directory_moved(open_union: Opener) -> None:
    """The new directory is another one: the lower's content is only where it went."""
    union = open_union(LOWER, redirect_dir="on")
    union.rename(b"d", b"moved", 0)
    union.mkdir(b"d", 0o755)
    union = union.reopen()
    assert union.names(b"d") == []
    assert union.names(b"moved") == [b"f", b"sub"]


def test_redirects_of_a_lower_are_followed_unless_told_not_to(open_union: Opener) -> None:
    """off and follow both follow, as the kernel's redirect_always_follow does; nofollow is EPERM."""
    upper = {"moved": Dir(xattrs={b"trusted.overlay.redirect": b"d"}), "moved/own": File()}
    for mode in ("on", "follow", "off"):
        assert open_union(upper, LOWER, redirect_dir=mode).names(b"moved") == [b"f", b"own", b"sub"]
    union = open_union(upper, LOWER, redirect_dir="nofollow")
    with fails(errno.EPERM):
        union.lstat(b"moved")


@pytest.mark.parametrize("target", [b"/../outside", b"../d", b"a/b", b"", b"/d/../e", b"//", b"/"])
def test_a_hostile_redirect_leads_nowhere(open_union: Opener, target: bytes) -> None:
    """Only a single name or an absolute path without `..` is one; nothing outside the layers is reached."""
    union = open_union(
        {"moved": Dir(xattrs={b"trusted.overlay.redirect": target}), "moved/own": File()},
        LOWER,
        redirect_dir="on",
    )
    try:
        assert union.names(b"moved") == [b"own"]
    except OSError as error:
        assert error.errno in {errno.EIO, errno.EINVAL, errno.ESTALE}  # noqa: PT017 - either answer is right


def test_a_redirect_longer_than_256_bytes_is_exdev(open_union: Opener) -> None:
    """redirect_max: the kernel would give up the same way."""
    long = "n" * 200
    union = open_union({f"{long}/{long}/x": File()}, redirect_dir="on")
    with fails(errno.EXDEV):
        union.rename(f"{long}/{long}".encode(), b"short", 0)


ON = {"metacopy": "on", "redirect_dir": "on"}


def test_moved_without_data(open_union: Opener) -> None:
    """rename and link of a metadata-only copy keep its way to the data, through several moves."""
    union = open_union({"d/f": File(b"data"), "e": Dir()}, **ON)
    union.chmod(b"d/f", 0o600)
    union.rename(b"d/f", b"e/g", 0)
    union.link(b"e/g", b"h")
    union.rename(b"e", b"moved", 0)
    for view in union.now_and_reopened():
        assert view.content(b"moved/g") == b"data"
        assert view.content(b"h") == b"data"
    assert "trusted.overlay.metacopy" in union.upper_xattrs("h")


@pytest.mark.parametrize("index", ["on", "off"])
def test_hard_links_of_the_lower(open_union: Opener, index: str) -> None:
    """A moved name of a linked file finds its data again."""
    union = open_union({"b/a": File(b"data"), "d/x": Link("b/a")}, index=index, **ON)
    union.rename(b"b/a", b"d/a", 0)
    for view in union.now_and_reopened():
        assert view.content(b"d/a") == b"data"
        assert view.content(b"d/x") == b"data"
