"""Extended attributes as users see them: kept, listed, hidden, escaped."""

import errno
import os

import pytest

from tests import trees
from tests.trees import Dir, File, Symlink
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]

DEFAULT = trees.acl(("u", 7), ("user", 1000, 7), ("g", 5), ("m", 7), ("o", 0))


def test_set_get_list_remove(open_union: Opener) -> None:
    """On a lower file it copies up and touches no other xattr."""
    union = open_union({"f": File(b"f", xattrs={b"user.a": b"1", b"trusted.b": b"2"})})
    union.setxattr(b"f", b"user.c", b"\0\xff" * 100, os.XATTR_CREATE)
    union.removexattr(b"f", b"user.a")
    for view in union.now_and_reopened():
        assert sorted(view.listxattr(b"f")) == [b"trusted.b", b"user.c"]
        assert view.getxattr(b"f", b"user.c") == b"\0\xff" * 100


def test_errors(open_union: Opener) -> None:
    """ENODATA for what is not there, EEXIST and ENODATA by the flags; failing copies nothing up."""
    union = open_union({"f": File(b"f", xattrs={b"user.a": b"1"})})
    with fails(errno.ENODATA):
        union.getxattr(b"f", b"user.none")
    with fails(errno.ENODATA):
        union.removexattr(b"f", b"user.none")
    assert os.listdir(union.upper) == []
    with fails(errno.EEXIST):
        union.setxattr(b"f", b"user.a", b"2", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        union.setxattr(b"f", b"user.none", b"2", os.XATTR_REPLACE)


def test_marks_of_the_layers_are_hidden(open_union: Opener) -> None:
    """Whatever the overlay itself writes or reads is no xattr of the merged file."""
    marks = {
        b"trusted.overlay.origin": b"x",
        b"trusted.overlay.foo": b"x",
        b"user.overlay.opaque": b"x",
        b"user.fuseoverlayfs.opaque": b"x",
        b"user.mine": b"m",
    }
    union = open_union({"d": Dir(xattrs=marks)})
    assert union.listxattr(b"d") == [b"user.mine"]
    for name in marks:
        if name != b"user.mine":
            with fails(errno.ENODATA):
                union.getxattr(b"d", name)


@pytest.mark.parametrize("prefix", [b"trusted.overlay.", b"user.overlay."])
def test_a_users_mark_is_escaped(open_union: Opener, prefix: bytes) -> None:
    """It reads back under its own name, lies on disk as overlay.overlay., and means nothing to the union."""
    union = open_union({"d/f": File()})
    union.setxattr(b"d", prefix + b"opaque", b"y", 0)
    for view in union.now_and_reopened():
        assert view.getxattr(b"d", prefix + b"opaque") == b"y"
        assert view.listxattr(b"d") == [prefix + b"opaque"]
        assert view.names(b"d") == [b"f"]
    assert union.upper_xattrs("d")[(prefix + b"overlay.opaque").decode()] == b"y"
    union.removexattr(b"d", prefix + b"opaque")
    assert union.listxattr(b"d") == []


def test_escapes_nest(open_union: Opener) -> None:
    """An overlay on this overlay escapes again: each level takes one off."""
    union = open_union()
    union.mkdir(b"d", 0o755)
    union.setxattr(b"d", b"trusted.overlay.overlay.opaque", b"y", 0)
    assert union.upper_xattrs("d")["trusted.overlay.overlay.overlay.opaque"] == b"y"
    assert union.listxattr(b"d") == [b"trusted.overlay.overlay.opaque"]


def test_an_escaped_mark_of_a_lower_survives_copy_up(open_union: Opener) -> None:
    """It is user data."""
    union = open_union({"f": File(b"f", xattrs={b"trusted.overlay.overlay.opaque": b"y"})})
    union.chmod(b"f", 0o600)
    assert union.getxattr(b"f", b"trusted.overlay.opaque") == b"y"


FOREIGN = [b"user.fuseoverlayfs.opaque", b"user.fuseoverlayfs.origin", b"user.containers.override_stat"]


@pytest.mark.parametrize("name", FOREIGN, ids=os.fsdecode)
def test_a_users_xattr_with_the_name_of_a_foreign_mark(open_union: Opener, name: bytes) -> None:
    """It reads back, is kept by copies and nests, and tells nothing to whoever takes it for a mark."""
    union = open_union({"d/f": File()})
    for path in (b"d", b"d/f"):
        union.setxattr(path, name, b"y", 0)
    for view in union.now_and_reopened():
        for path in (b"d", b"d/f"):
            assert view.listxattr(path) == [name]
            assert view.getxattr(path, name) == b"y"
            assert name.decode() not in view.upper_xattrs(path.decode())
        with fails(errno.EEXIST):
            view.setxattr(b"d", name, b"z", os.XATTR_CREATE)
    union.setxattr(b"d", b"user.overlay.literal." + name, b"z", 0)  # an overlay's in this one
    assert sorted(union.listxattr(b"d")) == sorted([name, b"user.overlay.literal." + name])
    union.removexattr(b"d", name)
    with fails(errno.ENODATA):
        union.getxattr(b"d", name)
    assert union.listxattr(b"d") == [b"user.overlay.literal." + name]


@pytest.mark.parametrize("name", FOREIGN, ids=os.fsdecode)
def test_a_foreign_mark_of_a_layer_is_not_seen(open_union: Opener, name: bytes) -> None:
    union = open_union({"f": File(xattrs={name: b"0:0:0755"})})
    assert union.listxattr(b"f") == []
    for act in (union.getxattr, union.removexattr):
        with fails(errno.ENODATA):
            act(b"f", name)
    union.setxattr(b"f", name, b"mine", 0)
    assert union.getxattr(b"f", name) == b"mine"


def test_copies_keep_users_foreign_names(open_union: Opener) -> None:
    union = open_union({"f": File(xattrs={b"user.overlay.literal." + FOREIGN[0]: b"y"})})
    assert union.listxattr(b"f") == [FOREIGN[0]]
    union.chmod(b"f", 0o600)
    assert union.getxattr(b"f", FOREIGN[0]) == b"y"


def test_a_symlinks_xattrs_are_its_own(open_union: Opener) -> None:
    """Nothing follows the link, at copy-up neither."""
    union = open_union(
        {"l": Symlink("f", xattrs={b"trusted.l": b"link"}), "f": File(xattrs={b"trusted.l": b"file"})}
    )
    union.setxattr(b"l", b"trusted.new", b"n", 0)
    assert union.getxattr(b"l", b"trusted.l") == b"link"
    assert union.listxattr(b"f") == [b"trusted.l"]


LOWER = {"d/old": File(b"old"), "d/sub/deep": File(b"deep")}


def test_the_mark_is_not_seen_and_cannot_be_set(open_union: Opener) -> None:
    """An opaque directory has no xattr of that name for users; setting it stores another, escaped one."""
    union = open_union({"d": Dir(opaque="y")}, LOWER)
    assert union.listxattr(b"d") == []
    union.setxattr(b"d", b"trusted.overlay.opaque", b"mine", 0)
    assert union.getxattr(b"d", b"trusted.overlay.opaque") == b"mine"
    assert union.upper_xattrs("d")["trusted.overlay.overlay.opaque"] == b"mine"
    assert "trusted.overlay.opaque" not in union.upper_xattrs("d")
