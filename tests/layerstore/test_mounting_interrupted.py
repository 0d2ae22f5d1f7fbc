"""A mount that is interrupted while the daemon starts: all of it or nothing, and the workspace knows."""

import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerstore.cli import program
from layerstore.store import locking
from tests.layerstore.commands import ROOTFS, Cli, tarball, wait_until_it_hears
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root]
_DELAYS = [0.025 * step for step in range(14)]  # of a start of about 0.35 s


@pytest.fixture
def store(base: Cli) -> Iterator[Cli]:
    base.run("create", "--name", "w", "base:1")
    try:
        yield base
    finally:
        for path in mounted(base):
            subprocess.run(["umount", "-l", path], check=False)


def mounted(cli: Cli) -> list[str]:
    table = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in table if str(cli.root) in line.split()[1]]


def play(cli: Cli, number: int, delay: float) -> int:
    process = cli.start("mount", "w", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until_it_hears(process)
    time.sleep(delay)
    process.send_signal(number)
    return process.wait(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_or_nothing(store: Cli, number: int) -> None:
    for delay in _DELAYS:
        status = play(store, number, delay)
        if status == 0:
            store.run("umount", "w")
        else:
            assert status == 128 + number
        assert mounted(store) == []
    store.run("mount", "w")
    store.run("umount", "w")


def test_killed_the_mount_is_known(store: Cli) -> None:
    """What the daemon makes of it afterwards can be seen and taken down."""
    for delay in _DELAYS:
        play(store, signal.SIGKILL, delay)
        deadline = time.monotonic() + 2
        while not mounted(store) and time.monotonic() < deadline:
            time.sleep(0.05)
        if mounted(store):
            store.run("umount", "w")
        assert mounted(store) == []


_HELD = ["sh", "-c", 'read go <"$0"; exec "$@"']


def killed_while_it_starts(words: Sequence[object], where: Path) -> Callable[[], object]:
    """Kill a command as soon as it has started its mount's daemon, which waits until the result is called."""
    gate = where / "gate"
    os.mkfifo(gate)
    child = os.fork()
    if child == 0:
        popen = subprocess.Popen

        def start(command: list[str], **settings: Any) -> None:
            popen([*_HELD, str(gate), *command], **settings)
            os.kill(os.getpid(), signal.SIGKILL)

        subprocess.Popen = start  # type: ignore[misc, assignment]
        try:
            program.layerstore.main(list(map(str, words)), standalone_mode=False)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return lambda: gate.write_bytes(b"\n")


def is_locked(directory: Path) -> bool:
    with locking.try_locked(directory) as free:
        return not free


def test_killed_the_daemon_has_the_workspace_until_it_is_up(store: Cli, where: Path) -> None:
    """Whoever comes next finds it mounted; an orphan never mounts what somebody has begun to change."""
    workspace = store.root / "workspaces/w"
    (workspace / "upper/new").write_text("new")
    go_on = killed_while_it_starts(["--root", store.root, "mount", "w"], where)
    assert is_locked(workspace)
    go_on()
    store.run("commit", "--chain", "w", "chained:1")
    assert mounted(store)
    assert [path.name for path in (workspace / "upper").iterdir()] == []
    assert Path(mounted(store)[0], "new").read_text() == "new"
    assert not is_locked(workspace)
    store.run("umount", "w")
    store.run("fsck")


def test_killed_the_daemon_has_an_images_layers_until_it_is_up(cli: Cli, where: Path) -> None:
    cli.run("import", "-", "only:1", stdin=tarball(ROOTFS))
    place = where / "image"
    place.mkdir()
    go_on = killed_while_it_starts(["--root", cli.root, "mount", "-r", "only:1", place], where)
    assert is_locked(cli.root / "oci")
    go_on()
    wait_until(lambda: not is_locked(cli.root / "oci"))
    try:
        assert (place / "etc/hosts").exists()
        assert "is mounted at" in cli.fail("rmi", "only:1")
    finally:
        subprocess.run(["umount", place], check=False)


@pytest.mark.slow
def test_killed_and_chained_at_once(store: Cli) -> None:
    """No moment at which the store is unusable afterwards, or a byte is lost."""
    for round_, delay in enumerate(_DELAYS):
        process = store.start("mount", "w", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_it_hears(process)
        (store.root / f"workspaces/w/upper/f{round_}").write_text("x")
        time.sleep(delay)
        process.kill()
        process.wait(60)
        store.run("commit", "--chain", "w", "chained:1")
        if mounted(store):
            store.run("umount", "w")
        assert store.run("ps", "-q") == "w"
        assert mounted(store) == []
    with tarfile.open(fileobj=io.BytesIO(store.call("export", "chained:1").stdout)) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {f"f{round_}" for round_ in range(len(_DELAYS))} <= names
    store.run("fsck")
