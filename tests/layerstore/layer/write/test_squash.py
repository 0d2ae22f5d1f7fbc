"""What was touched but not changed is left out of a layer, and the tree that results is the live one but
for times.
"""

import os
import random
import shutil
import stat
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests import snapshots, trees
from tests.layerstore.layer.write.kernel_mounts import Workspace
from tests.trees import Dir, File, Link, Symlink

pytestmark = pytest.mark.root

LOWER = {
    "etc/passwd": File(b"root\n", xattrs={b"user.x": b"1"}),
    "etc/shadow": File(b"secret\n", mode=0o600, gid=42),
    "etc/link": Symlink(target="passwd"),
    "etc/fifo": trees.fifo(),
    "etc/null": trees.char_device(1, 3),
    "usr/bin/tool": File(b"t" * 200_000, mode=0o4755),
    "usr/lib/a/b/c": File(b"deep"),
    "usr/lib/empty": Dir(mode=0o2775, gid=8),
    "usr/one": File(b"linked"),
    "usr/two": Link(to="usr/one"),
    "holes": File(b"end", holes=3 << 20),
}


@pytest.fixture
def workspace(where: Path) -> Workspace:
    return Workspace.over(where, LOWER, {"top/x": File(b"x"), "etc/shadow": File(b"newer\n", mode=0o600)})


def without_times(tree: dict[bytes, snapshots.Facts]) -> dict[bytes, snapshots.Facts]:
    return {path: {**facts, "mtime": 0} for path, facts in tree.items()}


def squashed(workspace: Workspace, live: dict[bytes, snapshots.Facts]) -> list[str]:
    """Commit, insist on the live tree, and give the names in the layer."""
    tar, result = workspace.commit(squash_unchanged=True)
    again = workspace.committed_tree(tar)
    assert not snapshots.differences(without_times(live), without_times(again), ("live", "committed"))
    plain, _ = workspace.commit()
    names = names_in(tar)
    assert result.entries == len(names)
    assert len(names) <= len(names_in(plain))
    return [name for name in names if name != "."]


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        return archive.getnames()


def rewrite(path: Path) -> None:
    """Write a file's own content into it again."""
    path.write_bytes(path.read_bytes())


def test_touched_is_left_out(workspace: Workspace) -> None:
    root = workspace.root
    with workspace.mounted():
        for path in ("etc/passwd", "etc/shadow", "usr/bin/tool", "usr/lib/a/b/c", "top/x"):
            rewrite(root / path)
        os.utime(root / "etc/fifo")
        os.utime(root / "etc/null")
        os.utime(root / "etc/link", follow_symlinks=False)
        os.utime(root / "usr/lib/empty")
        os.chmod(root / "holes", 0o600)
        os.chmod(root / "holes", 0o644)
        os.chmod(root / "usr/bin/tool", 0o4755)  # writing cleared the bit
        live = workspace.tree()
    assert squashed(workspace, live) == []
    _, result = workspace.commit(squash_unchanged=True)
    assert result.unchanged == 9
    assert result.unchanged_size == 5 + 6 + 200_000 + 4 + 1 + (3 << 20) + 3


def test_replaced_by_the_same_is_left_out(workspace: Workspace) -> None:
    """As a package that is installed once more does it: a new file, renamed over the old one."""
    root = workspace.root
    with workspace.mounted():
        shutil.copy2(root / "usr/lib/a/b/c", root / "usr/lib/a/b/c.new")
        os.rename(root / "usr/lib/a/b/c.new", root / "usr/lib/a/b/c")
        (root / "etc/link").unlink()
        os.symlink("passwd", root / "etc/link")
        (root / "etc/gone").write_bytes(b"")
        (root / "etc/gone").unlink()
        live = workspace.tree()
    assert squashed(workspace, live) == []


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A change that puts something else in place of a file."""

    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def test_any_other_difference_is_kept(workspace: Workspace) -> None:
    """Each of these is the least difference of its kind; directories come with what is in them."""
    root = workspace.root
    changes: dict[str, Callable[[Path], object]] = {
        "etc/passwd": lambda path: os.setxattr(path, "user.x", b"2"),
        "etc/shadow": lambda path: os.chown(path, 0, 43),
        "etc/link": instead(lambda path: path.symlink_to("shadow")),
        "etc/fifo": lambda path: os.chmod(path, 0o600),
        "etc/null": instead(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))),
        "usr/bin/tool": lambda path: path.write_bytes(b"t" * 199_999 + b"T"),
        "usr/lib/a/b/c": lambda path: path.unlink(),
        "usr/lib/empty": lambda path: os.chmod(path, 0o775),
        "top/x": instead(Path.mkdir),
    }
    with workspace.mounted():
        for path, change in changes.items():
            change(root / path)
        os.chmod(root / "usr/bin/tool", 0o4755)
        live = workspace.tree()
    names = squashed(workspace, live)
    assert set(names) == {
        "etc", "etc/passwd", "etc/shadow", "etc/link", "etc/fifo", "etc/null", "usr", "usr/bin",
        "usr/bin/tool", "usr/lib", "usr/lib/a", "usr/lib/a/b", "usr/lib/a/b/.wh.c", "usr/lib/empty", "top",
        "top/x",
        "top/x/.wh..wh..opq",
    }  # fmt: skip
    assert names.index("usr") < names.index("usr/bin") < names.index("usr/bin/tool")


@pytest.mark.parametrize("index", ["off", "on"])
def test_hard_links_stay(workspace: Workspace, index: str) -> None:
    """Without an index a write parts two names, with one it does not: the layer keeps what is seen."""
    with workspace.mounted(index=index):
        rewrite(workspace.root / "usr/one")
        os.link(workspace.root / "etc/passwd", workspace.root / "etc/passwd-")
        live = workspace.tree()
    names = squashed(workspace, live)
    assert {"usr/one", "etc/passwd", "etc/passwd-"} <= set(names)
    assert ("usr/two" in names) == (index == "on")


def test_opaque_moved_and_metacopy(workspace: Workspace) -> None:
    root = workspace.root
    with workspace.mounted(redirect_dir="on", metacopy="on", index="on"):
        shutil.copytree(
            root / "etc", root / "kept", symlinks=True, ignore=shutil.ignore_patterns("null", "fifo")
        )
        shutil.rmtree(root / "etc")
        os.rename(root / "kept", root / "etc")  # opaque: what is the same must stay in the layer
        os.rename(root / "usr/lib/a", root / "usr/lib/A")
        rewrite(root / "usr/lib/A/b/c")
        os.rename(root / "top", root / "away")
        rewrite(root / "away/x")
        os.rename(root / "away", root / "top")
        os.chown(root / "usr/bin/tool", 5, 5)
        os.chown(root / "usr/bin/tool", 0, 0)
        os.chmod(root / "usr/bin/tool", 0o4755)
        live = workspace.tree()
    names = squashed(workspace, live)
    assert {"etc/passwd", "etc/.wh..wh..opq", "usr/lib/A/b/c", "usr/lib/.wh.a"} <= set(names)
    assert not any(name.startswith(("top", "usr/bin")) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_changes(workspace: Workspace, seed: int) -> None:
    """Whatever is done, the squashed layer gives the live tree but for times."""
    chance = random.Random(seed)
    options = {"redirect_dir": "on", "metacopy": "on", "index": chance.choice(("on", "off"))}
    for _ in range(2):  # the second time over what the first left in the upper
        with workspace.mounted(**options):
            for _ in range(40):
                one_change(workspace.root, chance)
            live = workspace.tree()
        squashed(workspace, live)


def renew(path: Path) -> None:
    """The same content under the same name, in another inode."""
    shutil.copy2(path, path.with_name("copy"))
    os.rename(path.with_name("copy"), path)


def one_change(root: Path, chance: random.Random) -> None:
    """Something that happens to a tree; what does not go is passed over."""
    found = [Path(top, name) for top, dirs, files in os.walk(root) for name in sorted((*dirs, *files))]
    if not found:
        return
    path, other = chance.choice(found), chance.choice(found)
    status = path.lstat()
    is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    actions: list[Callable[[], object]] = [
        lambda: rewrite(path) if is_file else os.utime(path, follow_symlinks=False),
        lambda: None if is_link else os.chmod(path, stat.S_IMODE(status.st_mode)),
        lambda: None if is_link else os.chmod(path, chance.choice((0o755, 0o644, 0o4711))),
        lambda: os.chown(path, chance.choice((0, 42)), status.st_gid, follow_symlinks=False),
        lambda: path.write_bytes(path.read_bytes() + b"+") if is_file else None,
        lambda: (path / "new").write_bytes(b"new") if path.is_dir() and not is_link else None,
        lambda: shutil.rmtree(path) if path.is_dir() and not is_link else path.unlink(),
        lambda: os.rename(path, path.with_name(path.name + "_")),
        lambda: os.rename(path.with_name(path.name + "_"), path),
        lambda: path.rename(path.with_name("t")).rename(path),
        lambda: os.rename(path, other),
        lambda: os.link(path, path.with_name(f"link{chance.random()}"), follow_symlinks=False),
        lambda: renew(path) if is_file else None,
    ]
    try:
        chance.choice(actions)()
    except OSError:
        pass
