"""prune, df, fsck: nothing needless stays, nothing broken hides, nothing good goes."""

import hashlib
import io
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore.errors import InUse
from layerstore.store.store import Store
from tests.layerstore.archives import layout, old_docker, pack
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball
from tests.waiting import wait_until

BLOBS = "oci/blobs/sha256"


@pytest.fixture
def two(base: Cli) -> Cli:
    """``base:1``, and ``app:1`` with one layer more."""
    layerstore.create("base:1", name="w", root=base.root)
    (base.root / "workspaces/w/upper/new").write_text("new")
    layerstore.commit("w", "app:1", root=base.root)
    layerstore.rm("w", root=base.root)
    return base


def empty(cli: Cli) -> list[str]:
    other = Cli(cli.root.with_name("empty"))
    other.make_store()
    return contents(other.root)


Manifest = dict[str, Any]


def manifest_of(cli: Cli, name: str) -> Manifest:
    (image,) = layerstore.images(name, root=cli.root)
    return dict(json.loads((cli.root / BLOBS / image.digest.hex).read_text()))


def blob(cli: Cli, name: str, which: Callable[[Manifest], str]) -> Path:
    return cli.root / BLOBS / which(manifest_of(cli, name))[7:]


def top_layer(manifest: Manifest) -> str:
    return str(manifest["layers"][-1]["digest"])


def config(manifest: Manifest) -> str:
    return str(manifest["config"]["digest"])


def test_prune_takes_the_nameless(two: Cli) -> None:
    nameless = json.loads(two.run("inspect", "base:1"))[0]["Id"]
    two.run("import", "-", "base:1", stdin=tarball({"other": b"x"}))
    two.run("rmi", "app:1")
    said = two.run("prune")
    assert said.startswith(f"Deleted Images:\ndeleted: {nameless}\n")
    assert "Total reclaimed space: " in said
    assert [f"{i['Repository']}:{i['Tag']}" for i in two.objects("images")] == ["base:1"]
    assert two.run("prune") == "Total reclaimed space: 0B"


def test_prune_leaves_no_orphan_byte(two: Cli) -> None:
    (two.root / BLOBS / ("0" * 64)).write_bytes(b"orphan")
    (two.root / "layers" / ("0" * 64)).mkdir()
    (two.root / "partial").mkdir(mode=0o700)
    (two.root / "partial" / ("1" * 64)).write_bytes(b"half")
    two.run("prune")
    assert two.run("fsck").endswith("2 images, 0 workspaces: no problems")
    assert not (two.root / "partial").exists()
    two.fail("prune", "--all", status=2)
    said = two.run("prune", "--all", "-f").splitlines()
    assert {"untagged: base:1", "untagged: app:1"} < set(said)
    assert contents(two.root) == empty(two)


def test_an_uncompressed_layer_goes_with_its_image(base: Cli) -> None:
    """Its blob has the name of the unpacked layer, which others need."""
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_bytes(os.urandom(100_000))
    base.run("commit", "w", "small:1", "--compression", "gzip")
    assert base.run("diff", "base:1", "small:1") == "A /new"  # unpacks it
    before = contents(base.root)
    base.run("commit", "w", "large:1", "--compression", "none")
    large = blob(base, "large:1", top_layer)
    assert (base.root / "layers" / large.name).is_dir()
    plain, packed = sorted(
        (one for one in layerstore.df_details(root=base.root).images if one.names != ("base:1",)),
        key=lambda one: one.names != ("large:1",),
    )
    assert plain.shared == packed.shared  # the base and the unpacked layer
    assert min(plain.unique, packed.unique) >= 100_000
    base.run("rmi", "large:1")
    assert contents(base.root) == before
    assert not large.exists()


def test_what_a_workspace_needs_stays(two: Cli) -> None:
    two.run("create", "--name", "w", "app:1")
    two.run("create", "--name", "v", "base:1")
    two.run("rmi", "-f", "base:1")
    two.run("prune", "-af")
    assert [i["Repository"] for i in two.objects("images")] == ["app"]
    assert two.run("diff", "v") == ""
    (two.root / "workspaces/v/upper/more").write_text("more")
    assert two.run("commit", "v", "again:1").startswith("sha256:")
    said = two.run("prune", "-af", "--workspaces").splitlines()
    assert said[0] == "Deleted Workspaces:"
    assert set(said[1:3]) == {"v", "w"}
    assert contents(two.root) == empty(two)


def test_prune_beside_an_import(two: Cli) -> None:
    (two.root / BLOBS / ("0" * 64)).write_bytes(b"somebody's blob")
    with Store.open(two.root).writing():
        done = two.call("prune")
        assert b"is adding an image" in done.stderr
        assert "another process is adding" in two.fail("fsck", "--repair")
    assert (two.root / BLOBS / ("0" * 64)).exists()


def test_rmi_with_force(two: Cli) -> None:
    two.run("create", "--name", "w", "app:1")
    assert "rm that first, or use rmi -f" in two.fail("rmi", "app:1")
    two.run("mount", "w")
    try:
        assert "mounted workspace w" in two.fail("rmi", "-f", "app:1")
    finally:
        two.run("umount", "w")
    assert two.run("rmi", "-f", "app:1") == "Untagged: app:1"
    assert two.run("diff", "w") == ""
    done = two.call("rmi", "-f", "nothing")
    assert (done.returncode, done.stderr) == (0, b"layerstore: no such image: nothing\n")
    two.fail("rmi", "nothing")


def test_df(two: Cli) -> None:
    two.run("create", "--name", "w", "base:1")
    header, *lines = two.run("df").splitlines()
    assert header.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split()[0] for line in lines] == ["Images", "Layers", "Workspaces", "Unfinished"]
    images, layers, workspaces, _ = two.objects("df")
    assert (images["TotalCount"], images["Active"]) == (2, 1)
    on_disk = sum(path.stat().st_blocks * 512 for path in (two.root / BLOBS).iterdir())
    assert images["SizeBytes"] == on_disk
    assert 0 < images["ReclaimableBytes"] < on_disk
    assert (layers["TotalCount"], layers["Active"]) == (1, 1)
    assert (workspaces["TotalCount"], workspaces["Active"]) == (1, 0)


def test_a_good_store(two: Cli) -> None:
    two.run("load", stdin=pack(old_docker()))
    two.run("load", stdin=pack(layout()))
    two.run("create", "--name", "w", "app:1")
    before = contents(two.root)
    assert two.run("fsck") == "9 blobs, 2 layers, 4 images, 1 workspace: no problems"
    assert two.run("fsck", "--repair", "-q") == ""
    assert contents(two.root) == before


@pytest.mark.parametrize("which", [top_layer, config])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "gone", "link", "directory"])
def test_a_damaged_blob(two: Cli, which: Callable[[Manifest], str], damage: str) -> None:
    """Found, named with its image; repaired away; the other image stays; the lost one loads again."""
    archive = io.BytesIO()
    layerstore.save(["base:1", "app:1"], archive, root=two.root)
    archive.seek(0)
    place = blob(two, "app:1", which)
    raw = place.read_bytes()
    place.unlink()
    if damage == "link":
        (two.root / "elsewhere").write_bytes(raw)
        place.symlink_to(two.root / "elsewhere")
    elif damage == "directory":
        place.mkdir()
    elif damage != "gone":
        place.write_bytes(
            {"flip": bytes([raw[0] ^ 1]) + raw[1:], "cut": raw[:-1], "grow": raw + b"x"}[damage]
        )
    found = [problem.what for problem in layerstore.fsck(root=two.root).problems]
    assert any("image app:1: " in what for what in found)
    assert not any("base:1" in what for what in found)
    assert damage == "gone" or any(what.startswith(f"blob sha256:{place.name}: ") for what in found)
    if damage == "directory":
        place.rmdir()
    repaired = layerstore.fsck(root=two.root, repair=True).problems
    assert all(problem.repaired for problem in repaired)
    assert layerstore.fsck(root=two.root).problems == []
    assert [image.repository for image in layerstore.images(root=two.root)] == ["base"]
    layerstore.load(archive, root=two.root)
    assert layerstore.fsck(root=two.root).problems == []
    assert len(layerstore.images(root=two.root)) == 2


def test_the_commands_words(two: Cli) -> None:
    blob(two, "app:1", top_layer).write_bytes(b"x")
    done = two.call("fsck")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[-1].endswith("2 problems")
    said = two.run("fsck", "--repair").splitlines()
    assert all(line.endswith(": repaired") for line in said[:-1])
    assert said[-1].endswith("2 problems, 2 repaired")


@pytest.mark.parametrize(
    "damage",
    [
        lambda layer: (layer / "etc/hosts").write_text("127.0.0.1 localhos+\n"),
        lambda layer: (layer / "bin/sh").chmod(0o4755),
        lambda layer: (layer / "bin/sh").unlink(),
        lambda layer: (layer / "usr/more").touch(),
        lambda layer: os.utime(layer / "bin/sh", ns=(0, 0)),
        lambda layer: os.setxattr(layer / "usr", "user.x", b""),
    ],
)
def test_a_damaged_layer(base: Cli, damage: Callable[[Path], object]) -> None:
    """Somebody wrote to an unpacked layer: found, and unpacked again from its blob when it is next needed."""
    (layer,) = (base.root / "layers").iterdir()
    assert layerstore.fsck(root=base.root).problems == []
    times = (layer / "etc/hosts").stat()
    damage(layer)
    os.utime(layer / "etc/hosts", ns=(times.st_atime_ns, times.st_mtime_ns))
    (problem,) = layerstore.fsck(root=base.root).problems
    assert "differs from its blob" in problem.what
    assert layerstore.fsck(root=base.root, quick=True).problems == []
    (problem,) = layerstore.fsck(root=base.root, repair=True).problems
    assert problem.repaired
    layerstore.create("base:1", name="w", root=base.root)
    assert layerstore.fsck(root=base.root).problems == []
    assert sorted(str(path.relative_to(layer)) for path in layer.rglob("*")) == sorted(ROOTFS)


def test_strangers_and_workspaces(base: Cli) -> None:
    """What fsck cannot put right it leaves alone, and says so."""
    base.run("create", "--name", "w", "base:1")
    (base.root / BLOBS / "README").write_text("hello")
    (base.root / "layers/README").write_text("hello")
    (base.root / "workspaces/lost").mkdir()
    (base.root / "workspaces/w/merged").rmdir()
    found = [problem.what for problem in layerstore.fsck(root=base.root, repair=True).problems]
    assert len(found) == 4
    assert any("README is not a blob" in what for what in found)
    assert any("README is not a layer" in what for what in found)
    assert any("lost is not a workspace" in what for what in found)
    assert any("merged is missing" in what for what in found)
    assert (base.root / "workspaces/lost").is_dir()
    (base.root / "workspaces/w/workspace.json").write_text("{")
    assert any("workspace.json is damaged" in p.what for p in layerstore.fsck(root=base.root).problems)


def test_what_is_no_image_stays(base: Cli) -> None:
    """Another tool's artifact in the layout is none of our business."""
    index_file = base.root / "oci/index.json"
    index = json.loads(index_file.read_text())
    raw = b'{"schemaVersion":2}'
    digest = hashlib.sha256(raw).hexdigest()
    (base.root / BLOBS / digest).write_bytes(raw)
    index["manifests"].append({"mediaType": "text/plain", "digest": f"sha256:{digest}", "size": len(raw)})
    index_file.write_text(json.dumps(index))
    notes: list[str] = []
    assert layerstore.fsck(root=base.root, repair=True, note=notes.append).problems == []
    assert "not an image" in notes[0]
    assert json.loads(index_file.read_text()) == index


def test_a_layer_in_use_is_only_told_of(base: Cli, where: Path) -> None:
    (where / "mnt").mkdir()
    base.run("mount", "--read-only", "base:1", where / "mnt")
    try:
        (layer,) = (base.root / "layers").iterdir()
        (layer / "bin/sh").chmod(0o4755)
        (problem,) = layerstore.fsck(root=base.root, repair=True).problems
        assert not problem.repaired
        assert problem.what.endswith("(it is mounted)")
        assert layer.is_dir()
    finally:
        base.run("umount", where / "mnt")


def test_a_broken_index(base: Cli) -> None:
    (base.root / "oci/index.json").write_text("{")
    found = layerstore.fsck(root=base.root, repair=True)
    assert [problem.repaired for problem in found.problems] == [False]
    assert "index.json" in found.problems[0].what
    assert found.blobs == 3
    with pytest.raises(InUse), Store.open(base.root).writing():
        layerstore.fsck(root=base.root, repair=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_load_that_is_killed(cli: Cli, number: signal.Signals) -> None:
    """Half an archive: after SIGTERM nothing of it is there, after SIGKILL prune finds all of it."""
    archive = pack({"one": os.urandom(3 << 20), "two": os.urandom(3 << 20), **old_docker()})
    before = empty(cli)
    process = cli.start("load", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with process:
        process.stdin.write(archive[: 5 << 20])
        process.stdin.flush()
        wait_until(lambda: any((cli.root / BLOBS).glob("[0-9a-f]*")), seconds=30)
        process.send_signal(number)
        process.wait(30)
    if number == signal.SIGKILL:
        cli.run("prune")
    assert contents(cli.root) == before
