"""A commit beside writers: its layer is the state of one instant, and the pause ends, however it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from overlayfs_py.service import client
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root]
RUN_DIR = b"/run/overlayfs-py"
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}

# Ever larger numbers: first written to z, then renamed over b, which a commit reads before z.
_WRITER = """
import os, sys
top = sys.argv[1]
a, b = (os.path.join(top, name) for name in ("z", "b"))
fd, n = os.open(a, os.O_CREAT | os.O_RDWR), 0
while True:
    n += 1
    os.pwrite(fd, b"%12d" % n, 0)
    with open(b + ".new", "wb") as new: new.write(b"%12d" % n)
    os.rename(b + ".new", b)
    if n == 10: print(flush=True)
"""


@pytest.fixture
def workspace(base: Cli) -> Iterator[Path]:
    """``w`` over ``base:1``, mounted, with something in its upper to be read for a while."""
    base.run("create", "--name", "w", "base:1")
    top = Path(base.run("mount", "w"))
    try:
        (top / "m").write_bytes(os.urandom(24 << 20))
        yield top
    finally:
        with suppress(AssertionError):
            base.run("umount", "w")


@pytest.fixture
def writer(workspace: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Writes all the time."""
    command = [sys.executable, "-c", _WRITER, str(workspace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def layer_of(base: Cli, name: str) -> Path:
    """The newest layer of an image, unpacked."""
    base.run("create", "--name", "look", name)
    lowers = json.loads(base.run("inspect", "look"))[0]["GraphDriver"]["Data"]["LowerDir"].split(":")
    base.run("rm", "look")
    return Path(lowers[0])


def frozen(workspace: Path) -> bool:
    with client.connect(RUN_DIR, os.fsencode(workspace)) as daemon:
        return daemon.ask("status")["frozen"] is not None


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_layer_is_the_state_of_one_instant(
    base: Cli, workspace: Path, writer: "subprocess.Popen[bytes]", compression: str
) -> None:
    for number in range(3):
        done = base.call("commit", "--compression", compression, "w", f"live:{number}")
        assert done.returncode == 0
        assert re.fullmatch(rb"layerstore: w was paused for \d+\.\d\d s\n", done.stderr)
        layer = layer_of(base, f"live:{number}")
        a, b = (int((layer / name).read_bytes()[:12]) for name in ("z", "b"))
        assert 0 <= a - b <= 1, (a, b)
        assert ((layer / "b.new").exists()) <= (a - b == 1)
    assert writer.poll() is None
    assert not frozen(workspace)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_commit_that_is_killed_thaws(
    base: Cli, workspace: Path, writer: "subprocess.Popen[bytes]", number: signal.Signals
) -> None:
    (workspace / "n").write_bytes(os.urandom(100 << 20))
    with base.start("commit", "w", "live:1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as commit:
        wait_until(lambda: frozen(workspace) or commit.poll() is not None)
        assert commit.poll() is None
        commit.send_signal(number)
    assert commit.returncode != 0
    wait_until(lambda: not frozen(workspace))
    (workspace / "after").touch()
    assert "live" not in base.run("images")


def test_a_pause_that_ends_too_early_is_an_error(base: Cli, workspace: Path) -> None:
    """Somebody thaws the mount: what was read need not be one state, so no image is made of it."""
    (workspace / "n").write_bytes(os.urandom(100 << 20))
    with base.start("commit", "w", "live:1", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as commit:
        wait_until(lambda: frozen(workspace) or commit.poll() is not None)
        with client.connect(RUN_DIR, os.fsencode(workspace)) as daemon:
            daemon.ask("thaw")
        _, complaint = commit.communicate(timeout=60)
    assert commit.returncode == 1
    assert b"the pause of w ended before everything was read" in complaint
    assert "live" not in base.run("images")


def test_a_mount_frozen_by_somebody_else(base: Cli, workspace: Path) -> None:
    """It stays theirs: the commit says that it did not pause anybody, and thaws nothing."""
    with client.connect(RUN_DIR, os.fsencode(workspace)) as daemon:
        daemon.freeze(timeout=30, hold=True)
        done = base.call("commit", "w", "live:1")
        assert done.returncode == 0
        assert b"could not be paused" in done.stderr
        assert daemon.ask("thaw")


def test_no_pause(base: Cli, workspace: Path, writer: "subprocess.Popen[bytes]") -> None:
    done = base.call("commit", "--no-pause", "w", "live:1")
    assert b"paused" not in done.stderr


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest, where: Path) -> Iterator[Cli]:
    """A store with ``base:1`` on a file system that can share blocks."""
    kind = request.param
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text() or not shutil.which(f"mkfs.{kind}"):
        pytest.skip(f"no {kind} here")
    (where / "mounted").mkdir()
    with (where / "image").open("wb") as image:
        image.truncate(600 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(where / "image")], check=True, timeout=60)
    subprocess.run(
        ["mount", "-o", "loop", str(where / "image"), str(where / "mounted")], check=True, timeout=60
    )
    try:
        cli = Cli(where / "mounted/store")
        cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
        yield cli
    finally:
        subprocess.run(["umount", "-l", str(where / "mounted")], check=True, timeout=60)


def test_a_copy_that_shares_blocks_is_the_same_layer(sharing: Cli) -> None:
    """Hard links, marks, xattrs, times: the layer of a paused commit is that of an unmounted one; and the
    pause does not grow with what has to be compressed.
    """
    sharing.run("create", "--name", "w", "base:1")
    top = Path(sharing.run("mount", "w"))
    fill(top)
    paused = sharing.call("commit", "w", "live:1", env=EPOCH)
    assert paused.returncode == 0, paused.stderr
    sharing.run("umount", "w")
    before = sorted(os.listdir(sharing.root / "workspaces"))
    sharing.run("commit", "w", "still:1", env=EPOCH)
    live, still = (sharing.objects("history", name)[0] for name in ("live:1", "still:1"))
    assert (live["ID"], live["Size"]) == (still["ID"], still["Size"])
    assert before == ["w"]
    (seconds,) = re.findall(rb"paused for (\d+\.\d\d) s", paused.stderr)
    assert float(seconds) < 5


def fill(top: Path) -> None:
    (top / "big").write_bytes(os.urandom(100 << 20))
    for number in range(50):
        (top / f"f{number}").write_text("x" * number)
    os.link(top / "f1", top / "f1.again")
    os.link(top / "usr/lib/one", top / "one.again")
    os.setxattr(top / "f2", "user.x", b"1")
    os.chown(top / "f3", 1, 2)
    os.utime(top / "f4", ns=(1, 10**18 + 1))
    os.symlink("x", top / "link")
    os.mkfifo(top / "fifo")
    (top / "etc/hosts").unlink()
    os.rename(top / "usr", top / "renamed")
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x")
