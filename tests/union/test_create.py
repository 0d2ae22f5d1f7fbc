"""New inodes: complete under their name at once, over whatever hides a lower's."""

import errno
import os
import stat
from collections.abc import Callable

import pytest

from tests import trees
from tests.mounts import KernelMount, Layers
from tests.oracle.vfs import OsVfs, Vfs
from tests.trees import Dir, File, Symlink, fifo
from tests.union.conftest import Opener, fails

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize("entry", [File(b"x"), Symlink("x"), fifo()], ids=["file", "symlink", "fifo"])
def test_creation_replaces_a_whiteout(open_union: Opener, entry: object) -> None:
    """Each kind can be made again under a removed name, and is there after a remount."""
    union = open_union({"n": entry})
    kind = union.lstat(b"n").mode
    union.unlink(b"n")
    union.symlink(b"to", b"n") if stat.S_ISLNK(kind) else union.mknod(b"n", kind, 0)
    union = union.reopen()
    assert stat.S_IFMT(union.lstat(b"n").mode) == stat.S_IFMT(kind)
    assert union.names() == [b"n"]
    assert union.leftovers() == []


def test_a_users_whiteout_is_refused(open_union: Opener) -> None:
    """mknod of a 0:0 character device would remove a lower's name behind the union's back: EPERM."""
    union = open_union({"f": File()})
    union.unlink(b"f")
    for name in (b"f", b"new"):
        with pytest.raises(PermissionError):
            union.mknod(name, stat.S_IFCHR | 0o600, 0)


LOWER = {"d/old": File(b"old"), "d/sub/deep": File(b"deep")}


def test_mkdir_over_a_whiteout_is_opaque(open_union: Opener) -> None:
    """The removed directory's content must not come back; the mark is the kernel's."""
    union = open_union(LOWER)
    union.unlink(b"d/sub/deep")
    union.rmdir(b"d/sub")
    union.mkdir(b"d/sub", 0o700)
    assert union.upper_xattrs("d/sub")["trusted.overlay.opaque"] == b"y"
    union = union.reopen()
    assert union.names(b"d/sub") == []
    assert union.lstat(b"d/sub").mode & 0o7777 == 0o700


def test_nested_removal_and_making_again(open_union: Opener) -> None:
    """rm -r d; mkdir -p d/sub: nothing of the lower shows at any depth, and rmdir works again."""
    union = open_union(LOWER)
    for path in (b"d/sub/deep", b"d/old"):
        union.unlink(path)
    union.rmdir(b"d/sub")
    union.rmdir(b"d")
    union.mkdir(b"d", 0o755)
    union.mkdir(b"d/sub", 0o755)
    union = union.reopen()
    assert union.names(b"d") == [b"sub"]
    assert union.names(b"d/sub") == []
    union.rmdir(b"d/sub")
    union.rmdir(b"d")
    assert union.names() == []


def test_mkdir_of_a_new_name_is_not_opaque(open_union: Opener) -> None:
    """No lower has the name: a mark would be needless, and a commit would carry it."""
    union = open_union(LOWER)
    union.mkdir(b"new", 0o755)
    union.mkdir(b"d/new", 0o755)
    union.mkdir(b"d/new/sub", 0o755)
    for path in ("new", "d/new", "d/new/sub"):
        assert union.upper_xattrs(path) == {}
    assert os.listdir(union.upper / "d") == ["new"]


def test_without_default_acl_the_umask_counts(open_union: Opener) -> None:
    """Modes are the caller's, less the umask."""
    union = open_union()
    union.umask(0o027)
    union.write_file(b"f", b"", mode=0o666)
    union.mkdir(b"d", 0o777)
    union.mknod(b"p", stat.S_IFIFO | 0o666, 0)
    assert [union.lstat(name).mode & 0o777 for name in (b"f", b"d", b"p")] == [0o640, 0o750, 0o640]


def test_a_setgid_directory_gives_its_group(open_union: Opener) -> None:
    """To files and directories made in it, whether lower or copied up."""
    union = open_union({"d": Dir(mode=0o2755, gid=2000)})
    union.write_file(b"d/f", b"")
    union.mkdir(b"d/sub", 0o755)
    assert union.lstat(b"d/f").gid == 2000
    assert union.lstat(b"d/sub").gid == 2000
    assert union.lstat(b"d/sub").mode & stat.S_ISGID


KINDS: dict[str, Callable[[Vfs, bytes], object]] = {
    "file": lambda vfs, path: vfs.close(vfs.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o6640)),
    "directory": lambda vfs, path: vfs.mkdir(path, 0o1750),
    "fifo": lambda vfs, path: vfs.mknod(path, stat.S_IFIFO | 0o640, 0),
    "device": lambda vfs, path: vfs.mknod(path, stat.S_IFCHR | 0o640, os.makedev(1, 3)),
    "symlink": lambda vfs, path: vfs.symlink(b"target", path),
}


@pytest.mark.parametrize("kind", KINDS)
def test_made_as_by_the_kernel(open_union: Opener, kind: str) -> None:
    """In a directory of each sort, lower, upper, merged, with set-group-ID, with a default ACL: the same tree
    as the kernel's overlayfs makes.
    """
    places = {
        "low": Dir(),
        "both": Dir(),
        "group": Dir(mode=0o2775, gid=2000),
        "acl": Dir(
            xattrs={trees.ACL_DEFAULT: trees.acl(("u", 7), ("user", 5, 6), ("g", 5), ("m", 7), ("o", 0))}
        ),
    }
    union = open_union(places, upper={"both": Dir(), "up": Dir()})
    kernels = open_union(places, upper={"both": Dir(), "up": Dir()})
    kernels.close_all_layers()
    assert isinstance(kernels.layers, Layers)
    names = [f"{place}/new" for place in (*places, "up")]
    with KernelMount(kernels.layers, {}) as kernel:
        vfs = OsVfs(kernel.root)
        for name in names:
            KINDS[kind](vfs, name.encode())
    for name in names:
        KINDS[kind](union, name.encode())
    for name in names:
        ours, theirs = ((one.upper / name).lstat() for one in (union, kernels))
        assert (ours.st_mode, ours.st_uid, ours.st_gid, ours.st_rdev) == (
            theirs.st_mode,
            theirs.st_uid,
            theirs.st_gid,
            theirs.st_rdev,
        )
        assert union.upper_xattrs(name) == kernels.upper_xattrs(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_there_is_refused(open_union: Opener, kind: str) -> None:
    """EEXIST, whichever layer has it; nothing is copied up."""
    union = open_union({"d/low": File()})
    with fails(errno.EEXIST):
        KINDS[kind](union, b"d/low")
    assert os.listdir(union.upper) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_made_in_a_removed_directory(open_union: Opener, kind: str) -> None:
    """ENOENT for whoever still has it open."""
    union = open_union()
    union.mkdir(b"d", 0o755)
    node = union.overlay.lookup(union.overlay.root, b"d")
    assert node is not None
    union.overlay.rmdir(union.overlay.root, b"d")
    with fails(errno.ENOENT):
        union.overlay.mknod(node, b"new", stat.S_IFREG | 0o644, 0, union.caller)


def test_a_nameless_file_gets_its_first_name(open_union: Opener) -> None:
    """O_TMPFILE and linkat: never seen before it is complete, and a file like any other then."""
    union = open_union({"d": Dir()})
    union.tmpfile(b"d", 0o640, b"content", b"d/named")
    union.tmpfile(b"d", 0o640, b"nobody's", b"")
    for view in union.now_and_reopened():
        assert view.names(b"d") == [b"named"]
        assert view.content(b"d/named") == b"content"
        assert view.lstat(b"d/named").nlink == 1
    assert union.leftovers() == []
