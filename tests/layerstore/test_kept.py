"""Workspaces whose mount lives on in another mount namespace after it was unmounted here."""

import json
import time
from pathlib import Path

import pytest

from tests import rawcalls
from tests.layerstore.commands import Cli
from tests.service.elsewhere import copied_elsewhere, lock_holder
from tests.service.starts import wait_gone

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@pytest.fixture
def work(base: Cli) -> Path:
    """A mounted workspace; where."""
    base.run("create", "--name", "work", "base:1")
    return Path(base.run("mount", "work"))


def daemon_of(work: Path) -> int:
    pid = lock_holder(work.parent / "work")
    assert pid is not None
    return pid


def test_umount_succeeds_and_tells_who_keeps_it(base: Cli, work: Path) -> None:
    """At once, and what needs the daemon's end is refused with the same words until it has come."""
    with copied_elsewhere() as keeper:
        pid = daemon_of(work)
        began = time.monotonic()
        done = base.call("umount", "work")
        assert time.monotonic() - began < 20
        assert done.returncode == 0
        said = done.stderr.decode()
        assert said == (
            f"layerstore: work is unmounted here, but its daemon (pid {pid}) still serves "
            f"pid {keeper} (sleep) in another mount namespace: end that process, "
            "or run layerstore umount -f work\n"
        )
        for verb in (
            ["umount", "work"],
            ["rm", "work"],
            ["commit", "work"],
            ["diff", "work"],
            ["mount", "work"],
        ):
            line = base.fail(*verb)
            assert f"kept alive by pid {keeper} (sleep) in another mount namespace" in line
        assert base.run("prune", "-f").startswith("Total reclaimed space")
        assert work.is_dir()
    wait_gone(pid)
    assert base.fail("umount", "work") == "work is not mounted"
    base.run("mount", "work")
    base.run("umount", "work")


@pytest.mark.parametrize("before", [True, False])
def test_forced_umount_ends_it(base: Cli, work: Path, before: bool) -> None:
    """In one step, or after a umount that told of it."""
    (work / "new").write_text("kept")
    with copied_elsewhere():
        pid = daemon_of(work)
        if before:
            assert base.call("umount", "work").returncode == 0
        done = base.call("umount", "-f", "work")
        assert (done.returncode, done.stderr) == (0, b"")
        wait_gone(pid)
        assert "A /new" in base.run("diff", "work").splitlines()
        base.run("mount", "work")
        assert (work / "new").read_text() == "kept"
        base.run("umount", "-f", "work")


@pytest.mark.parametrize("by", ["rm", "umount"])
def test_forced_rm_ends_it(base: Cli, work: Path, by: str) -> None:
    """Of a mounted one, and of one that somebody unmounted."""
    with copied_elsewhere():
        pid = daemon_of(work)
        if by == "umount":
            rawcalls.umount(bytes(work))
        began = time.monotonic()
        assert base.run("rm", "-f", "work") == "work"
        assert time.monotonic() - began < 20
        wait_gone(pid)
    assert not work.parent.exists()


def test_what_a_daemon_still_writes_is_waited_for(base: Cli, work: Path) -> None:
    """umount(8) does not wait, the next verb does."""
    (work / "big").write_bytes(bytes(1 << 20) * 30)
    rawcalls.umount(bytes(work))
    assert "A /big" in base.run("diff", "work").splitlines()
    assert json.loads(base.run("inspect", "work"))[0]["State"]["Status"] == "unmounted"
    base.run("mount", "work")
    assert (work / "big").stat().st_size == 30 << 20
    rawcalls.umount(bytes(work))
    base.run("rm", "work")


def test_an_image_that_is_kept(base: Cli, where: Path) -> None:
    place = where / "mnt"
    place.mkdir()
    base.run("mount", "--read-only", "base:1", place)
    with copied_elsewhere() as keeper:
        done = base.call("umount", place)
        assert done.returncode == 0
        assert f"still serves pid {keeper} (sleep)" in done.stderr.decode()
        base.run("mount", "--read-only", "base:1", place)
        done = base.call("umount", place)
        assert (done.returncode, done.stderr) == (0, b"")
