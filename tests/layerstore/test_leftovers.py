"""What cannot be removed stops nobody: flags are taken off, mounts stay whole, `fsck` tells of what stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.store.removing import mounts_in
from layerstore.store.store import Store
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball
from tests.nobody import NOBODY, as_nobody

pytestmark = [pytest.mark.root]


@pytest.fixture
def store(where: Path) -> Iterator[Cli]:
    """``base:1`` and the workspace ``w`` over it, on a file system that has flags."""
    place = where / "tmpfs"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True, timeout=30)
    cli = Cli(place / "store")
    try:
        cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
        cli.run("create", "--name", "w", "base:1")
        yield cli
    finally:
        unmount_below(where)


def unmount_below(top: Path) -> None:
    for place in [*mounts_in(top)][::-1]:
        subprocess.run(["umount", place], check=True, timeout=30)


def chattr(flags: str, *paths: Path) -> None:
    subprocess.run(["chattr", flags, *paths], check=True, timeout=30)


def temporaries(cli: Cli) -> list[str]:
    return [path for path in contents(cli.root) if ".tmp-" in path]


def works(cli: Cli) -> None:
    """Every verb, afterwards."""
    for words in (["ps"], ["images"], ["df"], ["create", "--name", "after", "base:1"], ["commit", "after"]):
        cli.run(*words)
    cli.run("rm", "after")
    cli.run("prune")


@pytest.mark.parametrize("flags", ["+i", "+a"])
@pytest.mark.parametrize("place", ["", "upper", "upper/d", "upper/d/f", "workspace.json"])
def test_flags_in_a_workspace(store: Cli, flags: str, place: str) -> None:
    upper = store.root / "workspaces/w/upper"
    (upper / "d/e").mkdir(parents=True)
    (upper / "d/f").write_text("f")
    chattr(flags, store.root / "workspaces/w" / place)
    store.run("rm", "w")
    assert os.listdir(store.root / "workspaces") == []
    works(store)
    store.run("fsck")


@pytest.mark.parametrize("flags", ["+i", "+a"])
def test_flags_in_a_chained_workspace(store: Cli, flags: str) -> None:
    upper = store.root / "workspaces/w/upper"
    (upper / "d").mkdir()
    (upper / "d/f").write_text("f")
    chattr(flags, upper / "d/f", upper / "d")
    said = store.call("commit", "--chain", "w", "w:1")
    assert said.returncode == 0, said.stderr
    assert b"old image" not in said.stderr
    assert b"Errno" not in said.stderr
    assert store.objects("ps")[0]["Image"] == "w:1"
    assert temporaries(store) == []
    works(store)
    store.run("fsck")


@pytest.mark.parametrize("flags", ["+i", "+a"])
def test_flags_of_everything_else_that_is_removed(store: Cli, flags: str) -> None:
    """Blobs, layers, unfinished downloads, leftovers."""
    store.run("rm", "w")
    partial = store.root / "partial"
    partial.mkdir()
    (partial / ("a" * 64)).write_text("a")
    for place in ("oci", "oci/blobs/sha256"):
        (store.root / place / ".tmp-0000").write_text("a")
    (store.root / "layers/.tmp-1/d").mkdir(parents=True)
    for pattern in ("oci/blobs/sha256/*", "oci/.tmp-*", "layers/**/*", "partial/*"):
        chattr(flags, *(path for path in store.root.glob(pattern) if not path.is_symlink()))
    store.run("rmi", "base:1")
    store.run("prune")
    assert temporaries(store) == []
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "oci/blobs/sha256") == []
    assert not partial.exists()
    store.run("fsck")


def test_a_mount_inside_a_workspace(store: Cli, where: Path) -> None:
    """Nothing is removed, nor is anything of what is mounted; `rm` says what to do."""
    other = where / "other"
    other.mkdir()
    (other / "kept").write_text("kept")
    inside = store.root / "workspaces/w/upper/inside"
    inside.mkdir()
    subprocess.run(["mount", "--bind", other, inside], check=True, timeout=30)
    before = contents(store.root)
    assert store.fail("rm", "w") == f"{inside} is mounted: unmount it first"
    assert store.fail("rm", "-f", "w") == f"{inside} is mounted: unmount it first"
    assert f"{inside} is mounted" in store.fail("commit", "--chain", "w", "w:1")
    store.run("prune", "-f", "--workspaces")
    assert contents(store.root) == before
    works(store)
    subprocess.run(["umount", inside], check=True, timeout=30)
    store.run("rm", "w")
    assert (other / "kept").read_text() == "kept"


def test_a_leftover_that_stays(store: Cli, where: Path) -> None:
    """Something is mounted in it: all but that goes, every verb works, fsck says what it is and why."""
    other = where / "other"
    other.mkdir()
    (other / "kept").write_text("kept")
    left = store.root / "workspaces/.tmp-0123456789abcdef"
    (left / "upper/inside").mkdir(parents=True)
    (left / "upper/file").write_text("x")
    subprocess.run(["mount", "--bind", other, left / "upper/inside"], check=True, timeout=30)
    works(store)
    assert [path.name for path in left.rglob("*") if path.is_file()] == ["kept"]
    for repair in ([], ["--repair"]):
        done = store.call("fsck", *repair)
        assert done.returncode == 1
        [line] = [line for line in done.stdout.decode().splitlines() if "removing it failed" in line]
        assert str(left) in line
        assert "it is mounted: unmount it" in line
    unmount_below(left)
    store.run("fsck")
    assert not left.exists()
    assert (other / "kept").read_text() == "kept"


def test_a_layer_that_stays(store: Cli, where: Path) -> None:
    """prune says so, and removes the others."""
    store.run("import", "-", "other:1", stdin=tarball({"f": b"f"}))
    store.run("rm", "w")
    mounts = []
    for layer in (store.root / "layers").iterdir():
        if (layer / "etc").exists():
            mounts.append(layer / "etc")
            subprocess.run(["mount", "--bind", where, layer / "etc"], check=True, timeout=30)
    store.run("rmi", "base:1")
    store.run("rmi", "other:1")
    done = store.call("prune")
    assert done.returncode == 0
    assert f"not removed: {mounts[0]} is mounted: unmount it first" in done.stderr.decode()
    assert len(os.listdir(store.root / "layers")) == 1
    assert os.listdir(store.root / "oci/blobs/sha256") == []
    subprocess.run(["umount", mounts[0]], check=True, timeout=30)
    store.run("prune")
    assert os.listdir(store.root / "layers") == []


def test_broken_blobs_with_flags(store: Cli) -> None:
    blobs = sorted((store.root / "oci/blobs/sha256").iterdir())
    for path in blobs:
        path.write_bytes(b"x")
    chattr("+i", *blobs)
    done = store.call("fsck", "--repair")
    assert done.stdout.decode().count("repaired") >= len(blobs)
    assert os.listdir(store.root / "oci/blobs/sha256") == []


def test_a_leftover_that_is_closed(where: Path) -> None:
    """As an umask of 0777 left it to an ordinary user, killed right after mkdir(2)."""
    root = where / "store"
    os.chown(where, NOBODY, NOBODY)
    assert as_nobody(lambda: Store.open(root)) == 0
    left = root / "layers/.tmp-0123456789abcdef"
    left.mkdir(mode=0)
    os.chown(left, NOBODY, NOBODY)
    assert as_nobody(lambda: Store.open(root)) == 0
    assert not left.exists()
