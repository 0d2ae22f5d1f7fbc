"""A commit while things change, owners in user namespaces, and exports."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.errors import Unrepresentable
from layerstore.layer.ownermap import OwnerMap
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import export_tree, write_layer
from overlayfs_py.union.reading import Node, Reading
from tests import snapshots, trees
from tests.layerstore.layer.tars import paths, unpack
from tests.layerstore.layer.write.kernel_mounts import Workspace, tree_of
from tests.trees import Dir, File, Whiteout

pytestmark = pytest.mark.root


@pytest.fixture
def upper(where: Path) -> Path:
    (where / "upper").mkdir()
    trees.build(
        where / "upper", {"a": File(b"a"), "b": File(b"b" * 5000), "c/d": File(b"d"), "z": File(b"z")}
    )
    return where / "upper"


def commit_when(
    upper: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], **options: object
) -> tuple[bytes, tuple[str, ...]]:
    """Commit; `change` happens once the root has been listed."""
    original = Reading.upper_names
    pending = [change]

    def listing(self: Reading, directory: Node) -> tuple[list[tuple[bytes, int]], list[bytes]]:
        found = original(self, directory)
        if pending:
            pending.pop()()
        return found

    monkeypatch.setattr(Reading, "upper_names", listing)
    out = io.BytesIO()
    result = write_layer(StackPaths(os.fsencode(upper)), out, compression="none", **options)  # type: ignore[arg-type]
    return out.getvalue(), result.notes


def test_removed_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar, notes = commit_when(upper, monkeypatch, lambda: os.unlink(upper / "b"))
    assert notes == ("left out /b: it was removed while the layer was written",)
    unpack(tar, upper.parent / "o")
    assert paths(upper.parent / "o") == ["a", "c", "c/d", "z"]


def test_replaced_by_a_whiteout_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a remove does where a lower layer has the name: the layer says so, or the old file would
    come back.
    """

    def remove() -> None:
        os.unlink(upper / "b")
        trees.build(upper, {"b": Whiteout()})
        os.unlink(upper / "c/d")
        os.rmdir(upper / "c")
        trees.build(upper, {"c": Whiteout()})

    tar, notes = commit_when(upper, monkeypatch, remove)
    assert notes == ()
    assert b".wh.b" in tar
    assert b".wh.c" in tar


def test_replaced_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace() -> None:
        os.unlink(upper / "b")
        os.mkdir(upper / "b")

    with pytest.raises(Unrepresentable, match="/b: it was replaced"):
        commit_when(upper, monkeypatch, replace)


def test_directory_replaced_by_a_symlink_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is root in a workspace cannot make a commit read the host's files."""

    def replace() -> None:
        os.rename(upper / "c", upper / "c-away")
        os.symlink("/etc", upper / "c")

    with pytest.raises(Unrepresentable, match="/c: it was replaced"):
        commit_when(upper, monkeypatch, replace)


def test_shrunk_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.preadv

    def shrink(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.path.samestat(os.fstat(fd), os.stat(upper / "b")):
            os.truncate(upper / "b", 10)
        return original(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", shrink)
    with pytest.raises(Unrepresentable, match="/b: it became shorter"):
        write_layer(StackPaths(os.fsencode(upper)), io.BytesIO())


def test_grown_meanwhile(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that goes on: as long as it was when its header was written."""
    original = os.preadv

    def grow(fd: int, buffers: list[memoryview], offset: int) -> int:
        with open(upper / "b", "ab") as stream:
            stream.write(b"more")
        return original(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", grow)
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(upper)), out)
    unpack(out.getvalue(), upper.parent / "o")
    assert (upper.parent / "o/b").stat().st_size in range(5000, 5100)


def test_owners_in_a_user_namespace(upper: Path) -> None:
    os.chown(upper / "a", 100_005, 200_006)
    for path in ("b", "c", "c/d", "z", "."):
        os.chown(upper / path, 100_000, 200_000)
    ids = OwnerMap(uids=((0, 100_000, 65536),), gids=((0, 200_000, 65536),))
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(upper)), out, ids=ids)
    unpack(out.getvalue(), upper.parent / "o")
    st = os.stat(upper.parent / "o/a")
    assert (st.st_uid, st.st_gid) == (5, 6)
    os.chown(upper / "z", 7, 7)
    with pytest.raises(Unrepresentable, match="/z: its owner 7:7 has no id"):
        write_layer(StackPaths(os.fsencode(upper)), io.BytesIO(), ids=ids)
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(upper)), out, ids=OwnerMap(squash=(0, 0)))
    unpack(out.getvalue(), upper.parent / "o2")
    assert os.stat(upper.parent / "o2/z").st_uid == 0


def test_clamped_times(upper: Path) -> None:
    os.utime(upper / "a", ns=(0, 5_000_000_001))
    out = io.BytesIO()
    write_layer(StackPaths(os.fsencode(upper)), out, source_date_epoch=6)
    unpack(out.getvalue(), upper.parent / "o")
    assert os.stat(upper.parent / "o/a").st_mtime_ns == 5_000_000_001
    assert os.stat(upper.parent / "o/b").st_mtime_ns == 6 * 10**9


def test_export_is_the_merged_tree(where: Path) -> None:
    """Without a whiteout or a marker in it."""
    workspace = Workspace(where, lowers=2)
    top, low = workspace.lowers
    trees.build(low, {"a/x": File(b"x"), "a/y": File(b"y"), "gone": File(b"g"), "d/e": File(b"e" * 9000)})
    trees.build(top, {"gone": Whiteout(), "a": Dir(opaque="y"), "a/z": File(b"z")})
    with workspace.mounted(redirect_dir="on", metacopy="on"):
        os.rename(workspace.root / "d", workspace.root / "moved")
        os.chmod(workspace.root / "moved/e", 0o600)
        live = tree_of(workspace.root)
    out = io.BytesIO()
    export_tree(workspace.stack, out)
    assert b".wh." not in out.getvalue()
    unpack(out.getvalue(), where / "o")
    assert not snapshots.differences(live, tree_of(where / "o"), ("live", "exported"))


def test_xattr_names_that_pax_cannot_hold(upper: Path) -> None:
    os.setxattr(upper / "a", "user.a=b", b"1")
    with pytest.raises(Unrepresentable, match=r"/a: a layer cannot hold an xattr named 'user\.a=b'"):
        write_layer(StackPaths(os.fsencode(upper)), io.BytesIO())
