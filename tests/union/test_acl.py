"""ACLs: what a new inode inherits, and the ids in them."""

import struct

import pytest

from overlayfs_py.union import acl
from tests import trees
from tests.trees import Dir
from tests.union.conftest import Opener

pytestmark = [pytest.mark.root]


DEFAULT = trees.acl(("u", 7), ("user", 1000, 7), ("g", 5), ("m", 7), ("o", 0))


def test_default_acl_is_inherited(open_union: Opener) -> None:
    """A lower directory's default ACL counts for what is made in it; the umask then does not."""
    union = open_union({"d": Dir(mode=0o750, xattrs={trees.ACL_DEFAULT: DEFAULT})})
    union.umask(0o077)
    union.write_file(b"d/f", b"", mode=0o666)
    union.mkdir(b"d/sub", 0o777)
    for view in union.now_and_reopened():
        assert view.lstat(b"d/f").mode & 0o777 == 0o660
        assert trees.ACL_ACCESS in view.listxattr(b"d/f")
        assert view.getxattr(b"d/sub", trees.ACL_DEFAULT) == DEFAULT
        assert view.lstat(b"d/sub").mode & 0o777 == 0o770


def _entries(value: bytes) -> list[tuple[int, int, int]]:
    return list(struct.iter_unpack("<HHI", value[4:]))


@pytest.mark.parametrize(
    ("default", "mode", "bits"),
    [
        ((("u", 7), ("g", 7), ("o", 7)), 0o640, 0o640),
        ((("u", 5), ("g", 4), ("o", 0)), 0o666, 0o440),
        ((("u", 7), ("g", 0), ("o", 0)), 0o2777, 0o2700),
    ],
)
def test_an_acl_that_modes_can_say_becomes_the_mode(
    default: tuple[tuple[str, int], ...], mode: int, bits: int
) -> None:
    """Three entries and no more: the mode asked for, less what each denies; no ACL is kept."""
    assert acl.inherit(trees.acl(*default), mode) == (None, bits)


def test_an_acl_with_names_keeps_them_and_masks_the_group() -> None:
    """posix_acl_create_masq: the mask gets the group's bits, the group's own entry stays."""
    found, bits = acl.inherit(DEFAULT, 0o640)
    assert bits == 0o640
    assert found == trees.acl(("u", 6), ("user", 1000, 7), ("g", 5), ("m", 4), ("o", 0))


def test_only_named_ids_are_mapped() -> None:
    """Users by one map, groups by the other; owner, mask and others name nobody."""
    value = trees.acl(("u", 7), ("user", 5, 7), ("g", 5), ("group", 6, 4), ("m", 7), ("o", 0))
    mapped = acl.with_ids(value, lambda uid: uid + 100, lambda gid: gid + 200)
    assert _entries(mapped) == _entries(
        trees.acl(("u", 7), ("user", 105, 7), ("g", 5), ("group", 206, 4), ("m", 7), ("o", 0))
    )


def test_what_is_no_acl_is_left_alone() -> None:
    """A value of another length is the file system's to refuse."""
    assert acl.with_ids(b"nonsense", lambda uid: 0, lambda gid: 0) == b"nonsense"
