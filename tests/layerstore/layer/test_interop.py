"""Other programs read our layers and find what is in them, and we read theirs."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import export_tree, write_layer
from tests import snapshots, trees
from tests.layerstore.layer.oci_layout import write_layout
from tests.layerstore.layer.tars import member, pax, unpack
from tests.layerstore.layer.write.kernel_mounts import Workspace, tree_of
from tests.trees import Dir, File, Link, Symlink, Whiteout

pytestmark = pytest.mark.root

BASE = {
    "etc/passwd": File(b"root\n"),
    "etc/gone": File(b"gone\n"),
    "old/x": File(b"x"),
    "old/y": File(b"y"),
    "was-dir/z": File(b"z"),
}

# What umoci, docker, podman and GNU tar all keep: whole-second times (umoci rounds), no default ACLs.
S = 10**9
PLAIN: dict[str | bytes, trees.Entry] = {
    "": Dir(mtime_ns=1_500_000_000 * S),
    "etc": Dir(mtime_ns=1_600_000_000 * S),
    "etc/gone": Whiteout(),
    "etc/new": File(b"new\n", mode=0o4755, uid=1000, gid=1001, mtime_ns=1_600_000_001 * S),
    "etc/again": Link(to="etc/new"),
    "etc/sym": Symlink(target="../nowhere", mtime_ns=7 * S),
    "etc/fifo": trees.fifo(mode=0o600),
    "etc/block": trees.block_device(259, 300000),
    "n" * 180 + "/" + "m" * 180: File(b"long", mtime_ns=8 * S),
    "grüße": File(b"utf-8", mtime_ns=9 * S),
    b"latin-\xe4": File(b"raw", mtime_ns=9 * S),
    "new\nline": File(b"nl", mtime_ns=9 * S),
    "big-owner": File(b"o", uid=3_000_000, gid=4_000_000_000, mtime_ns=9 * S),
    "xattrs": File(b"x", xattrs={b"user.a": b"\0=\n\xff"}, mtime_ns=9 * S),
    "caps": File(b"c", mode=0o755, xattrs={trees.CAPABILITY: trees.NET_RAW}, mtime_ns=9 * S),
    "holes": File(b"end", holes=3 << 20, mtime_ns=9 * S),
    "all-hole": File(b"", holes=1 << 20, mtime_ns=9 * S),
    "old": Dir(opaque="y", mtime_ns=9 * S),
    "old/x": File(b"other", mtime_ns=9 * S),
    "was-dir": File(b"file", mtime_ns=9 * S),
}


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*words: str | Path, **more: object) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture
def workspace(where: Path) -> Workspace:
    workspace = Workspace(where)
    trees.build(workspace.lowers[0], BASE)
    trees.build(workspace.upper, PLAIN)
    return workspace


@pytest.fixture
def layout(workspace: Workspace) -> Path:
    """Both layers, gzip."""
    layers = []
    base = io.BytesIO()
    result = write_layer(StackPaths(os.fsencode(workspace.lowers[0])), base)
    layers.append((base.getvalue(), "tar+gzip", result.diff_id))
    top, result = workspace.commit(compression="gzip")
    layers.append((top, "tar+gzip", result.diff_id))
    return write_layout(workspace.where / "oci", layers)


def live_tree(workspace: Workspace) -> dict[bytes, snapshots.Facts]:
    with workspace.mounted():
        return tree_of(workspace.root)


def assert_same(live: dict[bytes, snapshots.Facts], other: Path, *, root: bool = True) -> None:
    there = {path: facts for path, facts in tree_of(other).items() if root or path}
    here = {path: facts for path, facts in live.items() if root or path}
    for path, facts in there.items():
        if path not in here:
            continue
        for tree in (facts, here[path]):
            tree["mtime"] = int(tree["mtime"]) // S  # type: ignore[call-overload]
            if tree["type"] == "l":
                tree.pop("mtime")  # umoci 0.4.7 leaves a symlink's time
    assert not snapshots.differences(here, there, ("live", "unpacked"))


def test_umoci_unpacks_what_the_mount_shows(workspace: Workspace, layout: Path) -> None:
    umoci = needs("umoci")
    bundle = workspace.where / "bundle"
    run(umoci, "unpack", "--image", f"{layout}:latest", bundle)
    assert_same(live_tree(workspace), bundle / "rootfs")


def test_podman_unpacks_what_the_mount_shows(workspace: Workspace, layout: Path) -> None:
    podman = needs("podman")
    store = workspace.where / "podman"
    store.mkdir()
    conf = store / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{store}/root"\nrunroot = "{store}/run"\n')
    env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf)}
    identity = run(podman, "pull", "-q", f"oci:{layout}:latest", env=env).strip()
    mounted = Path(run(podman, "image", "mount", identity, env=env).strip())
    try:
        assert_same(live_tree(workspace), mounted, root=False)  # mounting touches its root
    finally:
        run(podman, "image", "umount", identity, env=env)
    for form in (
        "docker-archive",
        "oci-archive",
    ):  # it makes each layer's tar anew, and insists on its digest
        run(podman, "save", "-q", "--format", form, "-o", workspace.where / form, identity, env=env)
    run(podman, "push", "-q", identity, f"dir:{workspace.where}/pushed", env=env)


def test_skopeo_copies_and_inspects(workspace: Workspace, layout: Path) -> None:
    skopeo = needs("skopeo")
    assert "sha256:" in run(skopeo, "inspect", f"oci:{layout}:latest")
    run(skopeo, "copy", f"oci:{layout}:latest", f"docker-archive:{workspace.where}/archive.tar:x:y")
    with tarfile.open(workspace.where / "archive.tar") as archive:
        assert "manifest.json" in archive.getnames()


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_gnu_tar_unpacks(workspace: Workspace, compression: str, sparse: bool) -> None:
    """GNU tar knows no whiteouts; everything else must come out as it went in."""
    tar = needs("tar")
    blob, _ = workspace.commit(compression=compression, sparse=sparse)
    path = workspace.where / "layer.tar"
    path.write_bytes(blob)
    there = workspace.where / "there"
    there.mkdir()
    decompress = {"none": [], "gzip": ["-z"], "zstd": ["--zstd"]}[compression]
    words: list[str | Path] = [
        tar,
        "-x",
        *decompress,
        "-p",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-f",
        path,
        "-C",
        there,
    ]
    run(*words)
    for marker in (there / "etc/.wh.gone", there / "old/.wh..wh..opq"):
        assert marker.stat().st_size == 0
        marker.unlink()
    assert (os.stat(there / "holes").st_blocks < 100) is sparse
    ours = workspace.where / "ours"
    unpack(blob, ours)
    os.unlink(ours / "etc/gone")
    os.removexattr(ours / "old", "trusted.overlay.opaque")
    left, right = tree_of(ours), tree_of(there)
    for directory in (b"etc", b"old"):  # their times changed just now
        left[directory].pop("mtime")
    assert not snapshots.differences(left, right, ("ours", "GNU tar"))


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_bsdtar_unpacks(workspace: Workspace, sparse: bool) -> None:
    bsdtar = needs("bsdtar")
    blob, _ = workspace.commit(sparse=sparse)
    there = workspace.where / "there"
    there.mkdir()
    (workspace.where / "layer.tar").write_bytes(blob)
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    run(bsdtar, "-x", "-p", "-f", workspace.where / "layer.tar", "-C", there, env=env)
    assert (there / "holes").read_bytes() == bytes(3 << 20) + b"end"


@pytest.mark.parametrize("sparse", [False, True], ids=["full", "sparse"])
def test_python_lists_the_same(workspace: Workspace, sparse: bool) -> None:
    blob, result = workspace.commit(sparse=sparse)
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        members = {member.name: member for member in archive}
    assert len(members) == result.entries
    assert members["etc/.wh.gone"].size == 0
    assert members["holes"].size == (3 << 20) + 3
    assert members["etc/new"].linkname == "etc/again"
    assert members["grüße"].mtime == 9
    assert {(member.uname, member.gname) for member in members.values()} == {("", "")}


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
def test_we_read_gnu_tar(where: Path, form: str) -> None:
    tar = needs("tar")
    tree = where / "tree"
    tree.mkdir()
    trees.build(
        tree,
        {
            "d": Dir(mode=0o3755, mtime_ns=5 * S),
            "d/f": File(b"content", uid=1000, mtime_ns=1_600_000_000 * S),
            "d/h": Link(to="d/f"),
            "l": Symlink(target="d/f", mtime_ns=3 * S),
            "holes": File(b"end", holes=1 << 20, mtime_ns=3 * S),
        },
    )
    if form != "v7":
        trees.build(tree / "d", {"p": trees.fifo()})
    if form in ("gnu", "pax"):
        trees.build(tree / "d", {"n" * 150 + "/" + "m" * 150: File(b"x"), "ln": Symlink(target="t" * 150)})
    sparse = ["-S"] if form in ("gnu", "pax") else []
    xattrs = ["--xattrs"] if form == "pax" else []
    archive = where / "x.tar"
    run(tar, "-c", *sparse, *xattrs, f"--format={form}", "--numeric-owner", "-f", archive, "-C", tree, ".")
    unpack(archive.read_bytes(), where / "o")
    left, right = tree_of(tree), tree_of(where / "o")
    for facts in (*left.values(), *right.values()):
        facts["mtime"] = int(facts["mtime"]) // S  # type: ignore[call-overload]
    assert not snapshots.differences(left, right, ("tree", "unpacked"))


def test_we_read_acls_of_gnu_tar(where: Path) -> None:
    """As text, with numbers; one that names a user of another machine is left out with a note."""
    tar = needs("tar")
    tree = where / "tree"
    tree.mkdir()
    access = trees.acl(("u", 6), ("user", 12345, 6), ("g", 4), ("group", 777, 4), ("m", 6), ("o", 4))
    default = trees.acl(("u", 7), ("user", 12345, 7), ("g", 5), ("m", 7), ("o", 5))
    trees.build(
        tree,
        {"d": Dir(xattrs={trees.ACL_DEFAULT: default}), "d/f": File(b"", xattrs={trees.ACL_ACCESS: access})},
    )
    run(tar, "-c", "--acls", "--format=pax", "-f", where / "x.tar", "-C", tree, ".")
    blob = (where / "x.tar").read_bytes()
    assert unpack(blob, where / "o").notes == ()
    assert os.getxattr(where / "o/d", trees.ACL_DEFAULT) == default
    assert os.getxattr(where / "o/d/f", trees.ACL_ACCESS) == access
    named = pax({b"SCHILY.acl.access": b"user::rw-,user:joe:r--,group::r--,mask::r--,other::---"}) + member(
        b"f"
    )
    assert len(unpack(named, where / "o2").notes) == 1
    numbered = pax(
        {b"SCHILY.acl.access": b"user::rw-,user:joe:r--:5,group::r--,mask::r--,other::---"}
    ) + member(b"f")
    unpack(numbered, where / "o3")
    assert b"\x05\0\0\0" in os.getxattr(where / "o3/f", trees.ACL_ACCESS)


def test_we_read_umocis_layers(workspace: Workspace, layout: Path) -> None:
    """repack: rounded times, a root entry, whiteouts by path; insert: no padding and no end-of-archive."""
    umoci = needs("umoci")
    bundle = workspace.where / "bundle"
    run(umoci, "unpack", "--image", f"{layout}:latest", bundle)
    rootfs = bundle / "rootfs"
    (rootfs / "etc/new").unlink()
    shutil.rmtree(rootfs / "old")
    (rootfs / "old").mkdir()
    (rootfs / "old/fresh").write_bytes(b"fresh")
    run(umoci, "repack", "--image", f"{layout}:second", bundle)
    (workspace.where / "one").write_bytes(b"inserted")
    run(umoci, "insert", "--image", f"{layout}:second", workspace.where / "one", "/sub/one")
    top = workspace.where / "top"
    manifest = _manifest(layout, "second")
    lowers: list[bytes] = []
    for number, digest in enumerate(manifest):
        here = workspace.where / f"l{number}"
        unpack((layout / "blobs/sha256" / digest).read_bytes(), here, lowers=lowers)
        lowers.insert(0, os.fsencode(here))
    flat = io.BytesIO()
    export_tree(StackPaths(lowers[0], tuple(lowers[1:])), flat)
    unpack(flat.getvalue(), top)
    assert (top / "sub/one").read_bytes() == b"inserted"
    assert sorted(os.listdir(top / "old")) == ["fresh"]
    assert not os.path.exists(top / "etc/new")
    assert (top / "etc/again").read_bytes() == b"new\n"


def _manifest(layout: Path, tag: str) -> list[str]:
    index = json.loads((layout / "index.json").read_text())
    wanted = [d for d in index["manifests"] if d["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest = json.loads((layout / "blobs/sha256" / wanted[0]["digest"][7:]).read_text())
    return [layer["digest"][7:] for layer in manifest["layers"]]
