"""Marks on the disk: how they are spelled, and which names and xattrs of users are none (decision 0025)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.syscalls.rename import RENAME_EXCHANGE
from overlayfs_py.union import marks
from tests import trees
from tests.mounts import KernelMount, Layers, make_layers
from tests.snapshots import Snapshot
from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener, Union, fails

pytestmark = [pytest.mark.root]

SECRET = {"t": Dir(mode=0o1777), "t/secret": File(b"secret"), "t/sub/deep": File(b"deep"), "t/f": File(b"f")}
WHITEOUT, OPAQUE = b".wh.secret", b".wh..wh..opq"
NAMES = [WHITEOUT, OPAQUE, b".wh..wh.plnk", b".wh.", b".wh..wh.", b".wh..wh.secret"]


def stacked(union: Union, times: int = 1, /, **options: str) -> Union:
    """A union over the upper of `union`, which is closed, and its lowers."""
    union.close_all_layers()
    assert isinstance(union.layers, Layers)
    where = union.upper.parent / f"over{times}"
    where.mkdir()
    made = make_layers(where, lowers=0)
    lowers = (union.upper, *union.layers.lowers)
    layers = Layers(lowers=lowers, upper=made.upper, work=made.work, merged=made.merged)
    return Union(layers, {"index": "off", **options})


def as_the_kernel(union: Union) -> None:
    """What the union shows, which is what the kernel does of the same layers; the union is closed by it."""
    ours = kinds(union.snapshot())
    union.options.pop("aufs", None)
    assert kinds(union.kernel_snapshot()) == ours


def kinds(snapshot: Snapshot) -> dict[bytes, int]:
    return {path: seen.status.mode for path, seen in snapshot.items()}


def renamed(union: Union, path: bytes) -> None:
    union.write_file(b"t/plain", b"")
    union.rename(b"t/plain", path, 0)


def exchanged(union: Union, path: bytes) -> None:
    union.write_file(path, b"first")
    union.unlink(path)
    union.write_file(b"t/sub/x", b"")
    union.write_file(path, b"")
    union.rename(b"t/sub/x", path, RENAME_EXCHANGE)


MAKERS: dict[str, Callable[[Union, bytes], object]] = {
    "create": lambda union, path: union.write_file(path, b""),
    "mkdir": lambda union, path: union.mkdir(path, 0o755),
    "fifo": lambda union, path: union.mknod(path, stat.S_IFIFO | 0o644, 0),
    "mknod": lambda union, path: union.mknod(path, stat.S_IFREG | 0o644, 0),
    "symlink": lambda union, path: union.symlink(b"to", path),
    "link": lambda union, path: union.link(b"t/f", path),
    "rename": renamed,
    "exchange": exchanged,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("name", NAMES, ids=os.fsdecode)
def test_however_made_it_hides_nothing(open_union: Opener, name: bytes, make: Callable[..., object]) -> None:
    """It is there under its name, also in a mount over this upper, and so is what it would have hidden."""
    union = open_union(SECRET)
    make(union, b"t/" + name)
    kind = stat.S_IFMT(union.lstat(b"t/" + name).mode)
    expected = sorted(union.names(b"t"))
    assert name in expected
    again = stacked(union)
    assert again.names(b"t") == expected
    assert again.content(b"t/secret") == b"secret"
    assert again.content(b"t/sub/deep") == b"deep"
    assert stat.S_IFMT(again.lstat(b"t/" + name).mode) == kind
    as_the_kernel(again)


@pytest.mark.parametrize("userxattr", [False, True])
@pytest.mark.parametrize("later", [False, True])
def test_in_either_namespace(open_union: Opener, userxattr: bool, later: bool) -> None:
    """A mount with marks in user.* and one with trusted.* believe each other."""
    flag = {"userxattr": ""}
    union = open_union(SECRET, **(flag if userxattr else {}))
    union.write_file(b"t/" + WHITEOUT, b"")
    union.write_file(b"t/sub/" + OPAQUE, b"")
    again = stacked(union, **(flag if later else {}))
    assert again.names(b"t") == [WHITEOUT, b"f", b"secret", b"sub"]
    assert again.names(b"t/sub") == [OPAQUE, b"deep"]


@pytest.mark.parametrize("index", ["off", "on"])
@pytest.mark.parametrize("metacopy", ["off", "on"])
def test_copied_up_again_and_again(open_union: Opener, index: str, metacopy: str) -> None:
    """Copies of such files, their data and metadata, are names in each further upper."""
    union = open_union(SECRET, index=index)
    for name in (WHITEOUT, OPAQUE):
        union.write_file(b"t/" + name, b"data")
    union.link(b"t/" + WHITEOUT, b"t/.wh.other")
    for turn in (1, 2):
        union = stacked(union, turn, index=index, metacopy=metacopy)
        union.chmod(b"t/" + WHITEOUT, 0o600 + turn)
        fd = union.open(b"t/" + OPAQUE, os.O_WRONLY | os.O_APPEND, 0)
        union.pwrite(fd, b"more", 4 * turn)
        union.close(fd)
    again = stacked(union, 3, metacopy=metacopy)
    assert again.content(b"t/" + OPAQUE) == b"datamoremore"
    assert again.lstat(b"t/" + WHITEOUT).mode & 0o777 == 0o602
    assert again.names(b"t") == [OPAQUE, b".wh.other", WHITEOUT, b"f", b"secret", b"sub"]


@pytest.mark.parametrize("form", ["device", "xattr"])
def test_removed_over_a_lower(open_union: Opener, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Whiteouts of such names hide them and nothing else, whatever their form."""
    if form == "xattr":
        monkeypatch.setattr("overlayfs_py.union.probe._makes_whiteouts", lambda work: False)
    union = open_union(SECRET)
    for name in NAMES[:4]:
        union.write_file(b"t/" + name, b"")
    union.mkdir(b"t/.wh.sub", 0o755)
    again = stacked(union)
    for name in NAMES[:4]:
        again.unlink(b"t/" + name)
    again.rmdir(b"t/.wh.sub")
    assert again.names(b"t") == [b"f", b"secret", b"sub"]
    third = stacked(again, 2)
    assert third.names(b"t") == [b"f", b"secret", b"sub"]
    third.write_file(b"t/" + WHITEOUT, b"again")
    assert third.reopen().names(b"t") == [WHITEOUT, b"f", b"secret", b"sub"]


def test_renamed_away(open_union: Opener) -> None:
    """The whiteout that a rename leaves, and the whole directory under another name."""
    union = open_union(SECRET, redirect_dir="on")
    union.write_file(b"t/" + WHITEOUT, b"x")
    union = stacked(union, redirect_dir="on")
    union.rename(b"t/" + WHITEOUT, b"t/sub/.wh.deep", 0)
    union.rename(b"t", b"u", 0)
    union = stacked(union, 2, redirect_dir="on")
    assert union.names(b"u") == [b"f", b"secret", b"sub"]
    assert union.names(b"u/sub") == [b".wh.deep", b"deep"]
    assert union.names() == [b"u"]


def test_a_directory_emptied_for_a_rename(open_union: Opener) -> None:
    """What takes the place of a directory of whiteouts keeps names as well."""
    union = open_union({"d/.wh": File(), "d/x": File()}, redirect_dir="on")
    union.unlink(b"d/x")
    union.unlink(b"d/.wh")
    union.mkdir(b"new", 0o755)
    union.write_file(b"new/.wh.x", b"")
    union.rename(b"new", b"d", 0)
    assert stacked(union).names(b"d") == [b".wh.x"]


def test_rm_minus_r(open_union: Opener) -> None:
    union = open_union(SECRET)
    for name in NAMES:
        union.write_file(b"t/" + name, b"")
    again = stacked(union)
    for name in again.names(b"t"):
        if name != b"sub":
            again.unlink(b"t/" + name)
    again.unlink(b"t/sub/deep")
    again.rmdir(b"t/sub")
    again.rmdir(b"t")
    assert again.reopen().names() == []


def test_marks_of_a_layer_beside_names_of_another(open_union: Opener) -> None:
    """AUFS's marks in one part of a merged directory, plain names in another: each counts as what it is."""
    union = open_union(
        {"t/f": Whiteout(form="aufs"), "t/sub": Dir(opq_file=True), "t/new": File(b"new")}, SECRET
    )
    union.write_file(b"t/" + WHITEOUT, b"")
    assert union.names(b"t") == [WHITEOUT, b"new", b"secret", b"sub"]
    again = stacked(union)
    assert again.names(b"t") == [WHITEOUT, b"new", b"secret", b"sub"]
    assert again.names(b"t/sub") == []
    assert not again.exists(b"t/f")


def test_the_mark_is_not_seen(open_union: Opener) -> None:
    """Nor can users take it away: what they set is another, escaped one."""
    union = open_union(SECRET)
    union.write_file(b"t/" + WHITEOUT, b"")
    assert union.upper_xattrs("t")["trusted.overlay.literal"] == b"y"
    for view in union.now_and_reopened():
        assert view.listxattr(b"t") == []
    with fails(errno.ENODATA):
        union.removexattr(b"t", b"trusted.overlay.literal")
    union.setxattr(b"t", b"trusted.overlay.literal", b"mine", 0)
    union.removexattr(b"t", b"trusted.overlay.literal")
    assert stacked(union).content(b"t/secret") == b"secret"


def test_only_where_there_is_such_a_name(open_union: Opener) -> None:
    union = open_union(SECRET)
    union.write_file(b"t/wh.plain", b"")
    union.write_file(b"t/.whatever", b"")
    assert "trusted.overlay.literal" not in union.upper_xattrs("t")


@pytest.mark.parametrize("kind", ["dir", "symlink", "fifo"])
def test_only_regular_files_are_marks(open_union: Opener, kind: str) -> None:
    """Of AUFS's names in a lower; others have been made by somebody who meant a name."""
    entry = {"dir": Dir(), "symlink": trees.Symlink("x"), "fifo": trees.fifo()}[kind]
    union = open_union({"t/.wh.f": entry, "t/.wh..wh..opq": entry}, SECRET, redirect_dir="on")
    assert b".wh.f" in union.names(b"t")
    assert union.content(b"t/f") == b"f"
    union.rename(b"t", b"u", 0)
    assert union.reopen().content(b"u/f") == b"f"


class TestTheOption:
    """aufs=on, off, auto; auto knows an upper of the kernel's."""

    MARKED = {"t/f": Whiteout(form="aufs"), "t/sub": Dir(opq_file=True)}  # noqa: RUF012

    @pytest.mark.parametrize("aufs", ["auto", "on"])
    def test_marks(self, open_union: Opener, aufs: str) -> None:
        union = open_union(self.MARKED, SECRET, aufs=aufs)
        assert union.names(b"t") == [b"secret", b"sub"]
        assert union.names(b"t/sub") == []

    def test_none(self, open_union: Opener) -> None:
        union = open_union(self.MARKED, SECRET, aufs="off")
        assert union.names(b"t") == [b".wh.f", b"f", b"secret", b"sub"]
        assert union.names(b"t/sub") == [b".wh..wh..opq", b"deep"]
        as_the_kernel(union)

    def test_on_believes_what_a_directory_says(self, open_union: Opener) -> None:
        """It is for layers that an overlay has written on although they hold marks."""
        union = open_union(SECRET)
        union.write_file(b"t/" + WHITEOUT, b"")
        (union.upper / "t/sub").mkdir()
        (union.upper / "t/sub/.wh.deep").touch()
        again = stacked(union, aufs="on")
        assert again.names(b"t") == [WHITEOUT, b"f", b"secret", b"sub"]
        assert again.names(b"t/sub") == []

    def test_an_upper_of_the_kernels(self, open_union: Opener) -> None:
        """In its root, in a directory of the lower's, and in a new one that a later lower has as well."""
        union = open_union(SECRET)
        union.close_all_layers()
        assert isinstance(union.layers, Layers)
        with KernelMount(union.layers):
            root = union.layers.merged
            (root / "new").mkdir()
            for directory in (root, root / "t", root / "new"):
                for name in (".wh.secret", ".wh.t", ".wh..wh..opq"):
                    (directory / name).touch()
        other = union.upper.parent / "other"
        trees_of = {"new/secret": File(b"n"), "t/secret": File(b"o")}
        other.mkdir()
        trees.build(other, trees_of)
        lowers = (*union.layers.lowers, other)
        union.layers = Layers(lowers=lowers, upper=union.upper, work=union.work, merged=union.layers.merged)
        again = stacked(union)
        assert b"secret" in again.names(b"new")
        as_the_kernel(again)

    def test_a_directory_of_such_an_upper(self, open_union: Opener) -> None:
        """Not the whole upper is the lower: what the kernel copied up says so itself."""
        union = open_union(SECRET)
        union.close_all_layers()
        assert isinstance(union.layers, Layers)
        with KernelMount(union.layers):
            (union.layers.merged / "t/.wh.secret").touch()
        layers = Layers(
            lowers=(union.upper / "t", union.layers.lowers[0] / "t"),
            upper=make_layers_in(union.upper.parent / "sub").upper,
            work=union.upper.parent / "sub/work",
            merged=union.layers.merged,
        )
        again = Union(layers, {"index": "off"})
        assert again.names() == [b".wh.secret", b"f", b"secret", b"sub"]
        again.close_all_layers()


def make_layers_in(where: Path) -> Layers:
    where.mkdir()
    return make_layers(where)


def test_userxattr_writes_users_marks(open_union: Opener) -> None:
    """Whiteouts are still devices, opaque is user.overlay.opaque, nothing is trusted."""
    union = open_union({"d/f": File()}, userxattr="")
    union.unlink(b"d/f")
    union.rmdir(b"d")
    union.mkdir(b"d", 0o755)
    assert union.upper_xattrs("d") == {"user.overlay.opaque": b"y"}
    union.reopen()
    assert union.names(b"d") == []
    assert union.listxattr(b"d") == []
    union.write_file(b"d/n", b"")
    assert stat.S_ISREG(union.lstat(b"d/n").mode)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"", 0),
        (b"i", marks.IMMUTABLE),
        (b"a", marks.APPEND),
        (b"ai", marks.IMMUTABLE | marks.APPEND),
        (b"a?", marks.APPEND),
    ],
)
def test_protection_reads_letters(value: bytes, flags: int) -> None:
    """Letters of later kernels are passed over (ovl_check_protattr); what we write reads back."""
    assert marks.parse_protection(value) == flags
    assert marks.parse_protection(marks.format_protection(flags)) == flags


@pytest.mark.parametrize(
    ("name", "internal"),
    [
        ("trusted.overlay.opaque", True),
        ("trusted.overlay.anything", True),
        ("user.overlay.redirect", True),
        ("user.fuseoverlayfs.opaque", True),
        ("trusted.overlay.overlay.opaque", False),
        ("user.overlay.overlay.opaque", False),
        ("user.overlay.literal.user.fuseoverlayfs.opaque", False),
        ("user.containers.override_stat", False),
        ("trusted.other", False),
        ("user.overlayed", False),
    ],
)
def test_which_names_are_the_overlays_own(name: str, internal: bool) -> None:
    """Escaped ones are users' and are copied; the others are never."""
    assert marks.is_internal(name) == internal
