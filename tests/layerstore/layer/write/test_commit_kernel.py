"""What the kernel shows of a workspace, and what it shows of the committed layer in its place, is the
same.
"""

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from layerstore.errors import Unrepresentable
from layerstore.layer.write.diff import changes
from tests import snapshots, trees
from tests.layerstore.layer.tars import paths, unpack
from tests.layerstore.layer.write.kernel_mounts import Workspace
from tests.trees import Dir, File, Link, Symlink

pytestmark = pytest.mark.root

LOWER = {
    "bin/tool": File(b"#!/bin/sh\n", mode=0o4755),
    "bin/tool2": Link(to="bin/tool"),
    "big": File(b"x" * 300_000, uid=1000, gid=1000, mode=0o640),
    "etc": Dir(mode=0o755),
    "etc/passwd": File(b"root\n"),
    "etc/shadow": File(b"secret\n", mode=0o600),
    "moved/a/b/c": File(b"deep"),
    "moved/a/other": Symlink(target="b/c"),
    "moved/gone": File(b"gone"),
    "moved/one": File(b"same inode"),
    "moved/two": Link(to="moved/one"),
    "tree/x": File(b"x"),
    "tree/y/z": File(b"z"),
    "private": Dir(mode=0o700, uid=5, gid=6),
    "private/inside": File(b"p"),
}


@pytest.fixture
def workspace(where: Path) -> Workspace:
    return Workspace.over(where, LOWER)


def assert_committed(workspace: Workspace, live: dict[bytes, snapshots.Facts]) -> None:
    tar, result = workspace.commit()
    assert result.notes == ()
    assert not snapshots.differences(live, workspace.committed_tree(tar), ("live", "committed"))


def test_nothing_changed(workspace: Workspace) -> None:
    with workspace.mounted():
        live = workspace.tree()
    assert_committed(workspace, live)


def test_every_kind_of_change(workspace: Workspace) -> None:
    root = workspace.root
    with workspace.mounted():
        (root / "new").mkdir()
        made: dict[str | bytes, trees.Entry] = {
            "file": File(
                b"new\n", mode=0o4711, uid=7, gid=8, xattrs={b"user.a": b"\0\xff=\n", b"trusted.t": b"t"}
            ),
            "again": Link(to="file"),
            "link": Symlink(target=b"no\xffwhere"),
            "fifo": trees.fifo(mode=0o600),
            "char": trees.char_device(1, 3),
            "block": trees.block_device(259, 300000),
            b"n\xffon-utf8\n": File(b"name"),
            "dir": Dir(mode=0o3777, xattrs={b"user.d": b"d", trees.ACL_DEFAULT: ACL_D}),
            "caps": File(b"c", mode=0o755, xattrs={trees.CAPABILITY: trees.NET_RAW}),
            "acl": File(b"a", mode=0o664, xattrs={trees.ACL_ACCESS: ACL}),
            "holes": File(b"end", holes=5 << 20),
            "old": File(b"", mtime_ns=-1_500_000_000),
            "late": File(b"", mtime_ns=10_000_000_000_000_000_001),
            "l" * 255: File(b"long"),
            "/".join(["d" * 100] * 5): File(b"deep"),
        }
        trees.build(root / "new", made)
        (root / "etc/shadow").unlink()
        shutil.rmtree(root / "tree")
        (root / "tree").mkdir()
        (root / "tree/x").write_bytes(b"new x")
        os.chown(root / "private", 9, 9)
        (root / "etc/passwd").write_bytes(b"root\nuser\n")
        os.link(root / "etc/passwd", root / "etc/passwd-")
        shutil.rmtree(root / "moved")
        (root / "moved").write_bytes(b"now a file")
        (root / "big").unlink()
        (root / "big").mkdir()
        live = workspace.tree()
    assert_committed(workspace, live)


ACL = trees.acl(("u", 6), ("user", 1000, 4), ("g", 4), ("m", 6), ("o", 4))
ACL_D = trees.acl(("u", 7), ("user", 1000, 7), ("g", 5), ("m", 7), ("o", 5))


def test_redirects_and_metacopy(workspace: Workspace) -> None:
    """A moved directory is written in full under its new name, a metadata-only copy with its data."""
    root = workspace.root
    with workspace.mounted(redirect_dir="on", metacopy="on", index="on"):
        os.chown(root / "big", 77, 88)
        os.chmod(root / "moved/a/b/c", 0o751)
        os.rename(root / "moved", root / "etc/renamed")
        (root / "etc/renamed/gone").unlink()
        (root / "etc/renamed/a/new").write_bytes(b"new")
        os.rename(root / "etc/renamed/a", root / "etc/renamed/A")
        os.chmod(root / "etc/renamed/one", 0o600)
        os.rename(root / "bin", root / "sbin")
        os.chmod(root / "sbin/tool", 0o755)
        live = workspace.tree()
    assert stat.S_ISREG(os.lstat(workspace.upper / "big").st_mode)
    assert os.lstat(workspace.upper / "big").st_blocks < 100, "the kernel made no metacopy: nothing is tested"
    assert_committed(workspace, live)


def test_lower_hard_links_written_through_one_name(where: Path) -> None:
    """With index=on every name shows the new content, also names that are in lower layers only."""
    workspace = Workspace(where, lowers=2)
    top, low = workspace.lowers
    trees.build(
        low,
        {
            "a/one": File(b"1" * 9000, mode=0o600),
            "b/c/two": Link(to="a/one"),
            "b/hidden": Link(to="a/one"),
            "m/x": File(b"m" * 9000),
            "n/y": Link(to="m/x"),
            "q/x": File(b"quiet"),
            "r/y": Link(to="q/x"),
        },
    )
    trees.build(top, {"b/hidden": File(b"another file"), "top": File(b"t")})
    with workspace.mounted(index="on", metacopy="on", redirect_dir="on"):
        with open(workspace.root / "a/one", "ab") as stream:
            stream.write(b"more")
        os.rename(workspace.root / "a", workspace.root / "z")
        os.chown(workspace.root / "n/y", 5, 5)
        live = workspace.tree()
    assert live[b"b/c/two"]["links"] == (b"b/c/two", b"z/one")
    assert_committed(workspace, live)
    assert {str(change) for change in changes(workspace.stack)} == {
        "D /a", "A /z", "A /z/one", "C /b", "C /b/c", "C /b/c/two", "C /m", "C /m/x", "C /n", "C /n/y",
    }  # fmt: skip


def test_redirect_through_several_layers(where: Path) -> None:
    """Each layer moves the directory on; the marks of all of them are followed."""
    workspace = Workspace(where, lowers=3)
    low, middle, top = reversed(workspace.lowers)
    trees.build(low, {"a/b/c": File(b"c" * 5000), "a/keep": File(b"k"), "z": File(b"z")})
    for lower, below, rename in ((middle, (low,), ("a", "b2")), (top, (middle, low), ("b2", "c3"))):
        step = where / f"step-{lower.name}"
        step.mkdir()
        inner = Workspace(step)
        object.__setattr__(inner.layers, "lowers", below)
        object.__setattr__(inner.layers, "upper", lower)
        with inner.mounted(redirect_dir="on", metacopy="on"):
            os.rename(inner.root / rename[0], inner.root / rename[1])
            os.chmod(inner.root / rename[1] / "b/c", 0o600)
    with workspace.mounted(redirect_dir="on", metacopy="on"):
        os.rename(workspace.root / "c3/b", workspace.root / "b")
        os.chmod(workspace.root / "b/c", 0o640)
        live = workspace.tree()
    tar, _ = workspace.commit()
    layer_only = {path: facts for path, facts in live.items() if path.startswith(b"b")}
    assert layer_only[b"b/c"]["size"] == 5000
    for path in (middle, top):  # what an OCI tool has below: no redirects, but the same names as whiteouts
        assert os.path.isdir(path)
    unpacked = workspace.committed_tree(tar)
    assert unpacked[b"b/c"] == layer_only[b"b/c"]


def test_opaque_marker_only_where_it_hides_something(workspace: Workspace) -> None:
    """The kernel marks every new directory opaque; in a layer that would be noise that depends on who
    mounted.
    """
    with workspace.mounted():
        (workspace.root / "brand-new").mkdir()
        shutil.rmtree(workspace.root / "tree")
        (workspace.root / "tree").mkdir()
    tar, _ = workspace.commit()
    assert b"brand-new/.wh..wh..opq" not in tar
    assert b"tree/.wh..wh..opq" in tar


def test_sockets_are_left_out_with_a_note(workspace: Workspace) -> None:
    with workspace.mounted():
        (workspace.root / "run").mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(workspace.root / "run/s"))
        listener.close()
    tar, result = workspace.commit()
    assert result.notes == ("left out the socket /run/s",)
    assert b"run/s" not in tar


@pytest.mark.parametrize("place", ["etc/passwd", "tree"])
def test_what_a_socket_hides_does_not_come_back(workspace: Workspace, place: str) -> None:
    with workspace.mounted():
        hidden = workspace.root / place
        shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(hidden))
    tar, result = workspace.commit()
    assert result.notes == (f"left out the socket /{place}",)
    assert os.fsencode(place) not in workspace.committed_tree(tar)


@pytest.mark.parametrize("name", [".wh.sbin", ".wh..wh..opq", ".wh."])
def test_reserved_names_fail_the_commit(workspace: Workspace, name: str) -> None:
    """A file of that name would delete something in the image."""
    with workspace.mounted():
        (workspace.root / "etc" / name).write_bytes(b"")
    with pytest.raises(Unrepresentable, match=f"/etc/{name}"):
        workspace.commit()


def test_excluded_paths(workspace: Workspace) -> None:
    with workspace.mounted():
        (workspace.root / "data").mkdir()
        (workspace.root / "data/secret").write_bytes(b"s")
        (workspace.root / "database").write_bytes(b"d")
        (workspace.root / "etc/passwd").unlink()
    tar, _ = workspace.commit(exclude=[b"data", b"/etc/passwd"])
    layer = workspace.where / "layer"
    unpack(tar, layer)
    assert paths(layer) == ["database", "etc"]


def test_nested_overlay_marks_survive(workspace: Workspace) -> None:
    """Marks of an overlay inside the workspace are escaped by the kernel, plain in the layer, escaped
    again on disk.
    """
    with workspace.mounted():
        (workspace.root / "inner").mkdir()
        try:
            os.setxattr(workspace.root / "inner", "trusted.overlay.opaque", b"y")
        except OSError:
            pytest.skip("this kernel does not escape xattrs")
        live = workspace.tree()
    tar, _ = workspace.commit()
    assert b"SCHILY.xattr.trusted.overlay.opaque=y" in tar
    assert live[b"inner"]["xattrs"] == {b"trusted.overlay.opaque": b"y"}
    assert workspace.committed_tree(tar) == live


def test_escaped_marks_of_both_namespaces_travel(workspace: Workspace) -> None:
    """Our own mount escapes what users set under either prefix; a plain foreign mark is nobody's word."""
    trees.build(
        workspace.upper,
        {
            "x": File(
                b"", xattrs={b"user.overlay.overlay.a": b"1", b"trusted.overlay.overlay.overlay.b": b"2"}
            )
        },
    )
    os.setxattr(workspace.upper / "x", "user.overlay.opaque", b"y")
    tar, result = workspace.commit()
    assert b"SCHILY.xattr.user.overlay.a=1" in tar
    assert b"SCHILY.xattr.trusted.overlay.overlay.b=2" in tar
    assert b"opaque" not in tar
    assert result.notes == ("left out the xattr user.overlay.opaque: it is another overlay's mark",)
    unpack(tar, workspace.where / "o")
    assert sorted(os.listxattr(workspace.where / "o/x")) == [
        "trusted.overlay.overlay.overlay.b",
        "user.overlay.overlay.a",
    ]


def test_metacopy_without_its_data_fails(workspace: Workspace) -> None:
    with workspace.mounted(redirect_dir="on", metacopy="on"):
        os.chown(workspace.root / "big", 77, 88)
    (workspace.lowers[0] / "big").unlink()
    with pytest.raises(Unrepresentable, match="/big"):
        workspace.commit()


def test_same_tree_same_digest(workspace: Workspace) -> None:
    """Neither the order on disk nor the number of cores or the time of day shows."""
    epoch = 1_700_000_000
    with workspace.mounted():
        for number in range(200):
            (workspace.root / f"f{number:03}").write_bytes(b"%d" % number * 50)
    _, first = workspace.commit(source_date_epoch=epoch, compression="gzip")
    other = Workspace.over(_made(workspace.where / "other"), LOWER)
    with other.mounted():
        for number in reversed(range(200)):
            (other.root / f"f{number:03}").write_bytes(b"%d" % number * 50)
    _, second = other.commit(source_date_epoch=epoch, compression="gzip")
    assert first == second


def _made(path: Path) -> Path:
    path.mkdir()
    return path
