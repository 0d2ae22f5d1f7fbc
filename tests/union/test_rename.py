"""Rename: what moves where, what is left behind, and EXDEV exactly where the kernel gives it."""

import errno
import os

import pytest

from tests.rawcalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT
from tests.trees import Dir, File, Symlink
from tests.union.conftest import Opener, fails
from tests.union.test_whiteouts import is_whiteout

pytestmark = [pytest.mark.root]

LOWER = {"d/f": File(b"f"), "d/sub/x": File(b"x"), "e/g": File(b"g"), "l": Symlink("d")}


def test_a_lower_file_moves_and_leaves_a_whiteout(open_union: Opener) -> None:
    """Copied up, renamed; the old name is a whiteout."""
    union = open_union(LOWER)
    union.rename(b"d/f", b"e/f", 0)
    assert is_whiteout(union.upper / "d/f")
    union = union.reopen()
    assert union.names(b"d") == [b"sub"]
    assert union.content(b"e/f") == b"f"
    assert union.leftovers() == []


def test_an_upper_file_moves_without_a_trace(open_union: Opener) -> None:
    """Nothing below has the name: no whiteout."""
    union = open_union(LOWER)
    union.write_file(b"e/new", b"n")
    union.rename(b"e/new", b"e/newer", 0)
    assert sorted(os.listdir(union.upper / "e")) == ["newer"]


def test_over_a_lower_file(open_union: Opener) -> None:
    """The target's lower content is gone for good."""
    union = open_union(LOWER)
    union.rename(b"d/f", b"e/g", 0)
    union = union.reopen()
    assert union.content(b"e/g") == b"f"
    assert not union.exists(b"d/f")


def test_over_a_whiteout(open_union: Opener) -> None:
    """A removed name can be renamed to; removed again it stays away."""
    union = open_union(LOWER)
    union.unlink(b"e/g")
    union.rename(b"d/f", b"e/g", 0)
    assert union.reopen().content(b"e/g") == b"f"
    union = union.reopen()
    union.unlink(b"e/g")
    assert union.reopen().names(b"e") == []


@pytest.mark.parametrize("path", [b"d", b"e"])
def test_a_lower_directory_without_redirects_is_exdev(open_union: Opener, path: bytes) -> None:
    """redirect_dir=off: mv copies, as over file systems; nothing was changed by the try."""
    union = open_union(LOWER)
    with fails(errno.EXDEV):
        union.rename(path, b"new", 0)
    assert os.listdir(union.upper) == []


def test_a_merged_directory_without_redirects_is_exdev(open_union: Opener) -> None:
    """Also when its upper part exists already."""
    union = open_union(LOWER)
    union.write_file(b"d/new", b"n")
    with fails(errno.EXDEV):
        union.rename(b"d", b"e/d", 0)


def test_an_upper_directory_moves_without_redirects(open_union: Opener) -> None:
    """Pure upper directories need none, with all they hold."""
    union = open_union(LOWER)
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/f", b"n")
    union.rename(b"new", b"e/moved", 0)
    assert union.reopen().content(b"e/moved/f") == b"n"


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


def test_a_moved_directory_over_an_empty_one(open_union: Opener) -> None:
    """Allowed when the target is empty in the merged view, whiteouts or not; ENOTEMPTY otherwise."""
    union = open_union(LOWER, redirect_dir="on")
    with fails(errno.ENOTEMPTY):
        union.rename(b"d", b"e", 0)
    union.unlink(b"e/g")
    union.rename(b"d", b"e", 0)
    assert union.reopen().names(b"e") == [b"f", b"sub"]


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


def test_an_upper_directory_renamed_over_a_removed_one_is_opaque(open_union: Opener) -> None:
    """The lower directory of that name stays hidden."""
    union = open_union({"d/f": File()}, redirect_dir="on")
    union.unlink(b"d/f")
    union.rmdir(b"d")
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/n", b"n")
    union.rename(b"new", b"d", 0)
    assert union.upper_xattrs("d")["trusted.overlay.opaque"] == b"y"
    assert union.reopen().names(b"d") == [b"n"]


def test_flags(open_union: Opener) -> None:
    """NOREPLACE refuses a name that is there, also a lower's; WHITEOUT is refused, as the kernel does."""
    union = open_union(LOWER)
    with fails(errno.EEXIST):
        union.rename(b"d/f", b"e/g", RENAME_NOREPLACE)
    union.rename(b"d/f", b"e/new", RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        union.rename(b"e/g", b"e/h", RENAME_WHITEOUT)
    assert union.names(b"e") == [b"g", b"new"]


def test_a_redirect_longer_than_256_bytes_is_exdev(open_union: Opener) -> None:
    """redirect_max: the kernel would give up the same way."""
    long = "n" * 200
    union = open_union({f"{long}/{long}/x": File()}, redirect_dir="on")
    with fails(errno.EXDEV):
        union.rename(f"{long}/{long}".encode(), b"short", 0)


def test_the_renamed_node_is_the_same(open_union: Opener) -> None:
    """st_ino and an open descriptor survive the rename of a lower file and of a lower directory."""
    union = open_union(LOWER, redirect_dir="on")
    fd = union.open(b"d/sub/x", os.O_RDONLY, 0)
    before = union.fstatus(fd).ino, union.lstat(b"d").ino
    union.rename(b"d", b"e/d", 0)
    assert (union.fstatus(fd).ino, union.lstat(b"e/d").ino) == before
    assert union.lstat(b"e/d/sub/x").ino == before[0]
    assert union.pread(fd, 10, 0) == b"x"
