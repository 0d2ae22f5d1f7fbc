"""A full disk: one line, exit 1, and the store as it was."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layerstore.commands import ROOTFS, Cli, contents, tarball

pytestmark = pytest.mark.root


@pytest.fixture
def small(where: Path) -> Iterator[Cli]:
    """A store with ``base:1`` on a file system of 8 MiB."""
    place = where / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True, timeout=30)
    try:
        cli = Cli(place / "store")
        cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
        yield cli
    finally:
        subprocess.run(["umount", "-l", place], check=False, timeout=30)


def test_import(small: Cli) -> None:
    before = contents(small.root)
    message = small.fail("import", "-", "big", stdin=tarball({"f": os.urandom(6_000_000)}))
    assert message == f"{small.root}/layers: cannot unpack /f: No space left on device"
    assert contents(small.root) == before


def test_commit(small: Cli) -> None:
    small.run("create", "--name", "w", "base:1")
    (small.root / "workspaces/w/upper/f").write_bytes(os.urandom(5_000_000))
    before = contents(small.root)
    message = small.fail("commit", "w", "base:2")
    assert message == f"{small.root}/oci/blobs/sha256: No space left on device"
    assert contents(small.root) == before
    assert (small.root / "workspaces/w/upper/f").stat().st_size == 5_000_000


@pytest.mark.parametrize("verb", ["save", "export"])
def test_output(small: Cli, where: Path, verb: str) -> None:
    """The file that could not be written is named, and is not there."""
    big = Cli(where / "store")
    big.run("import", "-", "big:1", stdin=tarball({"f": os.urandom(9_000_000)}))
    target = small.root.parent / "out.tar"
    assert big.fail(verb, "big:1", "-o", target) == f"{target}: No space left on device"
    assert os.listdir(small.root.parent) == ["store"]


def fill(cli: Cli) -> None:
    """To the last byte and the last inode that a small file would need."""
    with open(cli.root.parent / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return


def test_fsck_needs_no_room(small: Cli) -> None:
    """What cannot be unpacked to be compared is no fault: it is told, and nothing is thrown away."""
    small.run("create", "--name", "w", "base:1")
    fill(small)
    before = contents(small.root)
    for words in (["fsck"], ["fsck", "--repair"], ["fsck", "--quick"]):
        done = small.call(*words)
        assert done.returncode == 0, done.stderr
        assert b"no problems" in done.stdout
        assert (b"there is no room" in done.stderr) == ("--quick" not in words)
    assert contents(small.root) == before


def test_a_damaged_blob_is_repaired_without_room(small: Cli) -> None:
    blob = max((small.root / "oci/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)
    fill(small)
    small.call("fsck", "--repair")
    assert not blob.exists()


@pytest.mark.fuse
def test_umount(small: Cli) -> None:
    """It is unmounted, and says so."""
    small.run("create", "--name", "w", "base:1")
    place = Path(small.run("mount", "w"))
    (place / "f").write_text("x")
    fill(small)
    small.run("umount", "w")
    assert small.objects("ps")[0]["State"] == "unmounted"
    assert small.fail("umount", "w") == "w is not mounted"
    small.run("rm", "w")
