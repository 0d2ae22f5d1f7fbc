"""A store on a read-only file system: what is in it can be seen, mounted and taken out."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layerstore.commands import ROOTFS, Cli, contents, tarball

pytestmark = [pytest.mark.root]


@pytest.fixture
def frozen(where: Path) -> Iterator[Cli]:
    """``base:1`` and ``w``, in which something was written."""
    cli = Cli(where / "store")
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    cli.run("create", "--name", "w", "base:1")
    (cli.root / "workspaces/w/upper/new").write_text("new")
    subprocess.run(["mount", "--bind", cli.root, cli.root], check=True, timeout=30)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", cli.root], check=True, timeout=30)
        yield cli
    finally:
        subprocess.run(["umount", "-l", cli.root], check=True, timeout=30)


def test_everything_that_reads(frozen: Cli, where: Path) -> None:
    before = contents(frozen.root)
    for words in (
        ["images"],
        ["ps", "-s"],
        ["df"],
        ["df", "-v"],
        ["inspect", "base:1", "w"],
        ["history", "base:1"],
        ["diff", "base:1", "base:1"],
        ["fsck", "--quick"],
        ["save", "base:1", "-o", where / "save.tar"],
        ["export", "base:1", "-o", where / "image.tar"],
        ["export", "w", "-o", where / "w.tar"],
    ):
        frozen.run(*words)
    assert frozen.run("diff", "w") == "A /new"
    assert contents(frozen.root) == before
    names = subprocess.run(["tar", "tf", where / "w.tar"], check=True, capture_output=True).stdout.split()
    assert b"new" in {name.removeprefix(b"./") for name in names}


@pytest.mark.fuse
def test_an_image_is_mounted(frozen: Cli, where: Path) -> None:
    place = where / "mnt"
    place.mkdir()
    frozen.run("mount", "-r", "base:1", place)
    try:
        assert (place / "etc/hosts").read_text() == "127.0.0.1 localhost\n"
    finally:
        frozen.run("umount", place)


def test_what_needs_to_write_says_why_not(frozen: Cli) -> None:
    for words in (["mount", "w"], ["commit", "w"], ["rm", "w"], ["tag", "base:1", "b:2"]):
        assert "Read-only file system" in frozen.fail(*words)
    assert "Read-only file system" in frozen.fail("import", "-", "x:1", stdin=tarball({"f": b"f"}))


def test_fsck(frozen: Cli) -> None:
    """Blobs are checked; a layer is unpacked to be compared, for which there is no place."""
    done = frozen.call("fsck")
    assert done.returncode == 0
    assert b"not compared with its blob" in done.stderr
