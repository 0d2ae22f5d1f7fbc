"""Pulls that are killed, interrupted, or done by many at once."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import layerstore
from layerstore.digest import Digest
from layerstore.store import blobs, partials, sweep
from layerstore.store.store import Store
from tests.layerstore.commands import Cli
from tests.layerstore.transport.proxy import Fault, faulty_proxy
from tests.layerstore.transport.samples import FAST, MIB, digests, image, leftovers
from tests.layerstore.transport.servers import needs_registry
from tests.waiting import wait_until

pytestmark = needs_registry

SMALL = 10_000  # bytes; more than the configuration and the smallest layer, which may be there whole any time


@pytest.fixture
def pushed(store: Store, registry: str, tmp_path: Path) -> str:
    """The path of an image in the registry."""
    path = f"killed/{Digest.of(os.fsencode(tmp_path)).short}:1"
    image(store, "app", [os.urandom(2 * MIB), os.urandom(MIB), os.urandom(1000)])
    layerstore.push("app", f"{registry}/{path}", root=store.root, options=FAST)
    return path


def pipes() -> dict[str, int]:
    return {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def partial_bytes(store: Store) -> int:
    try:
        return sum(path.stat().st_size for path in partials.directory(store).iterdir())
    except FileNotFoundError:
        return 0


def test_killed_anywhere(store: Store, other: Store, registry: str, pushed: str) -> None:
    """Whenever it is killed: no image or the whole one, every blob good, and the next pull ends it."""
    cli = Cli(other.root)
    chance = random.Random(5)
    with faulty_proxy(registry, Fault("^GET .*blobs", pause=0.004, times=1000)) as proxy:
        for _ in range(6):
            process = cli.start("pull", f"{proxy.host}/{pushed}", **pipes())
            time.sleep(chance.uniform(0.25, 0.9))
            process.kill()
            process.communicate(timeout=10)
            digests(other.root)
            for found in layerstore.images(root=other.root):
                assert layerstore.inspect(found.id, root=other.root)
                assert digests(other.root) >= {path.name for path in store.blobs.iterdir()}
    assert cli.run("pull", f"{registry}/{pushed}")
    assert digests(other.root) == digests(store.root)
    assert not leftovers(other.root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(other: Store, registry: str, pushed: str, number: signal.Signals) -> None:
    """It ends at once, also while a connection hangs, and says nothing of it; what came is kept."""
    with faulty_proxy(registry, Fault("^GET .*blobs", pause=0.2, times=1000, skip=1)) as proxy:
        process = Cli(other.root).start("pull", f"{proxy.host}/{pushed}", **pipes())
        wait_until(lambda: partial_bytes(other) >= SMALL, what="some of a large layer")
        process.send_signal(number)
        started = time.monotonic()
        out, err = process.communicate(timeout=10)
    assert time.monotonic() - started < 2
    assert (process.returncode, err) == (128 + number, b"")
    for line in out.splitlines():  # docker's, of what had happened until then
        assert re.fullmatch(rb"[0-9a-f]{12}: [\w ]+|1: Pulling from .*", line)
    assert leftovers(other.root)
    assert partials.sweep(other) > 0
    assert not partials.directory(other).exists()


def test_many_at_once(other: Store, registry: str, pushed: str) -> None:
    """Processes that pull the same image load each blob once."""
    with faulty_proxy(registry) as proxy:
        cli = Cli(other.root)
        processes = [cli.start("pull", "-q", f"{proxy.host}/{pushed}", **pipes()) for _ in range(4)]
        for process in processes:
            out, err = process.communicate(timeout=30)
            assert (process.returncode, err) == (0, b""), err.decode()
            assert out.decode().strip() == f"{proxy.host}/{pushed}"
        loaded = [one.line for one in proxy.requests("^GET .*blobs/")]
        assert len(loaded) == len(set(loaded)) == 4
    digests(other.root)
    assert not leftovers(other.root)
    assert len(layerstore.images(root=other.root)) == 1


def test_partials_in_use_are_not_swept(store: Store, other: Store, tmp_path: Path) -> None:
    made = image(store, "app", [b"layer"])
    with partials.resume(other, made) as partial:
        assert partial is not None
        partial.append(b"x")
        assert partials.sweep(other) == 0
        sweep.sweep(other)
    assert partials.kept(other, made) == 1
    assert partials.sweep(other, older_than=3600) == 0
    os.utime(partials.directory(other) / made.digest.hex, (1, 1))
    assert partials.sweep(other, older_than=3600) == 1
    assert not blobs.is_present(other, made)


def test_progress_on_a_terminal(other: Store, registry: str, pushed: str) -> None:
    """A line for each blob on the terminal; docker's lines on standard output, the name last."""
    import pty

    controller, terminal = pty.openpty()
    try:
        options = {**pipes(), "stderr": terminal}
        process = Cli(other.root).start("pull", f"{registry}/{pushed}", **options)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        shown = os.read(controller, 1 << 16)
    finally:
        os.close(terminal)
        os.close(controller)
    assert b"Pull complete" in shown
    assert out.splitlines()[-1] == f"{registry}/{pushed}".encode()
