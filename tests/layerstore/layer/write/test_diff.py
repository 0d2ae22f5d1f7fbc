"""``diff``: docker's lines, in docker's order, at the cost of the upper."""

import os
import shutil
from pathlib import Path

import pytest

from layerstore.layer.stack import StackPaths
from layerstore.layer.unpack.rootdir import remove
from layerstore.layer.write.diff import Change, changes, changes_between
from overlayfs_py.union.layer import Real
from tests import trees
from tests.layerstore.layer.write.kernel_mounts import Workspace
from tests.trees import Dir, File, Link, Symlink, Whiteout

pytestmark = pytest.mark.root

LOWER = {
    "a/b/c": File(b"c"),
    "a/b/d": File(b"d"),
    "e/f": File(b"f"),
    "g": Symlink(target="x"),
    "same": File(b"same"),
    "tree/x/y": File(b"y"),
    "tree/z": File(b"z"),
}


def lines(workspace: Workspace, **options: object) -> list[str]:
    return [str(change) for change in changes(workspace.stack, **options)]  # type: ignore[arg-type]


@pytest.fixture
def workspace(where: Path) -> Workspace:
    return Workspace.over(where, LOWER)


def test_nothing_changed(workspace: Workspace) -> None:
    assert lines(workspace) == []


def test_the_three_letters(workspace: Workspace) -> None:
    """A parent is listed, as changed, before what changed in it; the root never is."""
    root = workspace.root
    with workspace.mounted():
        (root / "a/b/c").write_bytes(b"other")
        (root / "a/b/new").write_bytes(b"n")
        (root / "new").mkdir()
        (root / "new/file").write_bytes(b"n")
        (root / "e/f").unlink()
    assert lines(workspace) == [
        "C /a",
        "C /a/b",
        "C /a/b/c",
        "A /a/b/new",
        "C /e",
        "D /e/f",
        "A /new",
        "A /new/file",
    ]
    assert lines(workspace, exclude=[b"new", b"e/f"]) == ["C /a", "C /a/b", "C /a/b/c", "A /a/b/new"]


def test_a_removed_tree_is_one_line(workspace: Workspace) -> None:
    with workspace.mounted():
        shutil.rmtree(workspace.root / "tree")
    assert lines(workspace) == ["D /tree"]


def test_a_tree_removed_and_made_again(workspace: Workspace) -> None:
    """The old children that did not come back are deleted, one by one."""
    with workspace.mounted():
        shutil.rmtree(workspace.root / "tree")
        (workspace.root / "tree/x").mkdir(parents=True)
        (workspace.root / "tree/new").write_bytes(b"n")
    assert lines(workspace) == ["C /tree", "A /tree/new", "C /tree/x", "D /tree/x/y", "D /tree/z"]


def test_other_kinds_in_place(workspace: Workspace) -> None:
    """What was below a directory that became a file is not listed."""
    with workspace.mounted():
        shutil.rmtree(workspace.root / "tree")
        (workspace.root / "tree").write_bytes(b"file")
        (workspace.root / "g").unlink()
        (workspace.root / "g").mkdir()
        (workspace.root / "g/in").write_bytes(b"")
    assert lines(workspace) == ["C /g", "A /g/in", "C /tree"]


def test_copied_up_but_unchanged(workspace: Workspace) -> None:
    """A chown to the same owner copies up; nothing changed for those who look."""
    with workspace.mounted():
        os.chown(workspace.root / "same", 0, 0)
        os.chmod(workspace.root / "a/b/c", 0o644)
    assert (workspace.upper / "same").exists()
    assert lines(workspace) == []


@pytest.mark.parametrize("change", ["mode", "owner", "time", "xattr", "content of the same size and time"])
def test_each_difference_counts(workspace: Workspace, change: str) -> None:
    path = workspace.root / "same"
    with workspace.mounted():
        before = os.stat(path)
        match change:
            case "mode":
                os.chmod(path, 0o600)
            case "owner":
                os.chown(path, 5, 5)
            case "time":
                os.utime(path, ns=(0, before.st_mtime_ns + 1))
            case "xattr":
                os.setxattr(path, "user.x", b"1")
            case _:
                path.write_bytes(b"SAME")
                os.utime(path, ns=(0, before.st_mtime_ns))
    assert lines(workspace) == ["C /same"]


def test_moved_directories(workspace: Workspace) -> None:
    with workspace.mounted(redirect_dir="on", metacopy="on"):
        os.rename(workspace.root / "tree", workspace.root / "moved")
        os.chmod(workspace.root / "moved/z", 0o600)
    assert lines(workspace) == ["A /moved", "A /moved/x", "A /moved/x/y", "A /moved/z", "D /tree"]


def test_needless_whiteouts_are_no_change(workspace: Workspace) -> None:
    trees.build(workspace.upper, {"never": Whiteout(), "same": Whiteout(form="xattr"), "": Dir(opaque="x")})
    assert lines(workspace) == ["D /same"]


def test_names_are_one_line_each() -> None:
    assert str(Change("A", b"a\nb\x1b[0m\xff")) == "A /a\\nb\\x1b[0m\\xff"
    assert str(Change("C", "grüße".encode())) == "C /grüße"


def test_between_images(where: Path) -> None:
    """What both share at the bottom is not read; else both trees are."""
    base, one, two = (where / name for name in ("base", "one", "two"))
    for path in (base, one, two):
        path.mkdir()
    trees.build(base, {"x": File(b"x"), "d/y": File(b"y"), "d/z": File(b"z")})
    trees.build(one, {"d/y": File(b"changed"), "only1": File(b"1")})
    trees.build(two, {"d/z": Whiteout(), "only2": File(b"2"), "only2b": Link(to="only2")})
    b, o, t = map(os.fsencode, (base, one, two))
    assert [str(change) for change in changes_between(StackPaths(o, (b,)), StackPaths(t, (b,)))] == [
        "C /d",
        "C /d/y",
        "D /d/z",
        "D /only1",
        "A /only2",
        "A /only2b",
    ]
    assert list(changes_between(StackPaths(b), StackPaths(b))) == []
    assert [str(change) for change in changes_between(StackPaths(b), StackPaths(o, (b,)))] == [
        "C /d",
        "C /d/y",
        "A /only1",
    ]


def test_cost_follows_the_upper(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower directories are not listed, whatever their size."""
    workspace = Workspace(where)
    trees.build(workspace.lowers[0], {f"d{n}/f{m}": File(b"") for n in range(20) for m in range(20)})
    trees.build(workspace.upper, {"d3/f3": File(b"changed"), "d3": Dir()})
    listed = []
    original = Real.open_dir

    def watched(self: Real) -> int:
        listed.append(self)
        return original(self)

    monkeypatch.setattr(Real, "open_dir", watched)
    assert "C /d3/f3" in lines(workspace)
    names = [real.layer_path() for real in listed if not real.layer.is_upper]
    assert set(names) <= {b"/"}  # to see what file system it is on


def test_without_lowers_everything_is_new(where: Path) -> None:
    (where / "only").mkdir()
    trees.build(where / "only", {"a/b": File(b"")})
    assert [str(change) for change in changes(StackPaths(os.fsencode(where / "only")))] == ["A /a", "A /a/b"]


def test_deep_trees(where: Path) -> None:
    """Deeper than Python's stack, and than the descriptors a process may have."""
    workspace = Workspace(where)
    path = b"/".join([b"d"] * 1500)
    for depth in range(1, 1501):
        os.mkdir(os.path.join(os.fsencode(workspace.upper), path[: 2 * depth - 1]))
    found = list(changes(workspace.stack))
    assert (len(found), found[-1].path) == (1500, path)
    tar, result = workspace.commit()
    assert result.entries == 1501
    assert path + b"/" in tar
    remove(os.open(workspace.where, os.O_RDONLY), b"upper")  # nor could shutil.rmtree
