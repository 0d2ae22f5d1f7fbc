"""An upper that is made into its layer by moving files is what unpacking the layer's tar gives, to the last
xattr.
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from layerstore.layer.write.rotate import rotate
from layerstore.store.treecheck import first_difference
from tests import trees
from tests.layerstore.layer.tars import unpack
from tests.layerstore.layer.write.kernel_mounts import Workspace
from tests.layerstore.layer.write.test_squash import LOWER, one_change, rewrite
from tests.trees import File, Link

pytestmark = pytest.mark.root


@pytest.fixture
def workspace(where: Path) -> Workspace:
    return Workspace.over(where, LOWER, {"top/x": File(b"x" * 5000), "top/y": Link(to="top/x")})


def links(root: Path) -> set[frozenset[str]]:
    """The groups of names of one inode."""
    groups: dict[int, set[str]] = {}
    for top, _, files in os.walk(root):
        for name in files:
            path = os.path.join(top, name)
            groups.setdefault(os.lstat(path).st_ino, set()).add(os.path.relpath(path, root))
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def times(root: Path) -> dict[str, int]:
    return {os.path.relpath(top, root): os.stat(top).st_mtime_ns for top, _, _ in os.walk(root)}


def assert_rotated(workspace: Workspace, **options: object) -> None:
    tar, result = workspace.commit(**options)
    unpacked, rotated = workspace.where / "unpacked", workspace.where / "rotated"
    unpack(tar, unpacked, lowers=[os.fsencode(path) for path in workspace.lowers])
    rotated.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (unpacked, rotated)]
    try:
        assert rotate(workspace.stack, fds[1], **options) == result.entries  # type: ignore[arg-type]
        assert first_difference(*fds) is None
    finally:
        for fd in fds:
            os.close(fd)
    assert links(unpacked) == links(rotated)
    assert times(unpacked) == times(rotated)


def test_every_kind_of_entry(workspace: Workspace) -> None:
    root = workspace.root
    with workspace.mounted():
        (root / "new").mkdir()
        trees.build(
            root / "new",
            {
                "file": File(b"f", mode=0o4711, uid=7, gid=8, xattrs={b"user.a": b"1", b"trusted.t": b"2"}),
                "again": Link(to="file"),
                "fifo": trees.fifo(),
                "device": trees.block_device(259, 300000),
                "caps": File(b"c", mode=0o755, xattrs={trees.CAPABILITY: trees.NET_RAW}),
                "holes": File(b"end", holes=5 << 20),
                "dir": trees.Dir(mode=0o3070, xattrs={b"user.d": b"d"}),
                "socket": trees.socket(),
            },
        )
        rewrite(root / "etc/passwd")
        (root / "usr/lib/a/b/c").unlink()
        shutil.rmtree(root / "top")
        (root / "top").mkdir()
        (root / "etc/link").unlink()
    assert_rotated(workspace)


@pytest.mark.parametrize("epoch", [None, 1_000_000_000])
def test_moved_metacopy_and_indexed(workspace: Workspace, epoch: int | None) -> None:
    root = workspace.root
    with workspace.mounted(redirect_dir="on", metacopy="on", index="on"):
        os.chown(root / "usr/bin/tool", 5, 6)
        os.chown(root / "usr/one", 5, 6)  # metadata only, with another name below
        os.rename(root / "usr/lib", root / "library")
        (root / "library/a/new").write_bytes(b"n")
        with open(root / "top/y", "ab") as stream:
            stream.write(b"more")
        os.rename(root / "etc", root / "library/etc")
        os.chmod(root / "library/etc/shadow", 0o640)
        os.link(root / "library/etc/passwd", root / "library/etc/passwd-")
    assert_rotated(workspace, source_date_epoch=epoch)


def test_squashed(workspace: Workspace) -> None:
    with workspace.mounted():
        rewrite(workspace.root / "etc/passwd")
        os.chmod(workspace.root / "etc/shadow", 0o644)
        rewrite(workspace.root / "usr/lib/a/b/c")
    assert_rotated(workspace, squash_unchanged=True)


def test_kept(workspace: Workspace) -> None:
    """As links, with the upper as it was."""
    with workspace.mounted():
        rewrite(workspace.root / "etc/passwd")
        (workspace.root / "etc/shadow").unlink()
    before, _ = workspace.commit()
    place = workspace.where / "linked"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        rotate(workspace.stack, fd, keep=True)
    finally:
        os.close(fd)
    assert (place / "etc/passwd").samefile(workspace.upper / "etc/passwd")
    assert workspace.commit()[0] == before
    shutil.rmtree(workspace.upper)
    place.rename(workspace.upper)
    assert workspace.commit()[0] == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_changes(workspace: Workspace, seed: int) -> None:
    chance = random.Random(seed)
    options = {"redirect_dir": "on", "metacopy": "on", "index": chance.choice(("on", "off"))}
    with workspace.mounted(**options):
        for _ in range(60):
            one_change(workspace.root, chance)
    assert_rotated(workspace, squash_unchanged=chance.random() < 0.5)
