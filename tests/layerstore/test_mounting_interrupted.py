"""A mount that is interrupted while the daemon starts: all of it or nothing, and the workspace knows."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layerstore.commands import Cli, wait_until_it_hears

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
