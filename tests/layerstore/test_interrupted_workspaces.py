"""Interrupted between two steps, a workspace is mounted or not as it was before, and `ps` knows."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore.verbs import cp as cp_verb
from layerstore.verbs import mount as mount_verb
from layerstore.workspace import binds, mounting, overlay
from tests.layerstore.commands import Cli, wait_until_it_hears

pytestmark = [pytest.mark.fuse, pytest.mark.root]


class Interrupted(BaseException):
    """What a handler raises."""


@pytest.fixture
def store(base: Cli) -> Iterator[Cli]:
    base.run("create", "--name", "w", "base:1")
    try:
        yield base
    finally:
        for path in mounted(base.root.parent):
            subprocess.run(["umount", "-l", path], check=False)


def mounted(below: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{below}/")]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Interrupted as soon as the first call has returned."""
    real: Callable[..., Any] = getattr(where, name)
    calls = []

    def call(*words: Any, **options: Any) -> Any:
        result = real(*words, **options)
        calls.append(name)
        if len(calls) == 1:
            raise Interrupted
        return result

    monkeypatch.setattr(where, name, call)


def state(cli: Cli) -> str:
    return layerstore.ps(root=cli.root)[0].status


@pytest.mark.parametrize("step", ["mount", "umount"])
def test_cp_leaves_no_mount(store: Cli, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    interrupt_after(monkeypatch, mounting, step)
    with pytest.raises(Interrupted):
        layerstore.cp("w:/etc/hosts", str(store.root.parent / "out"), root=store.root)
    assert mounted(store.root) == []
    assert state(store) == "created"


def test_what_is_left_open_holds_nobody_up(store: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between open(2) and whoever would close it."""
    left_open: list[int] = []

    def opened(*_: Any) -> None:
        left_open.append(os.open(store.root / "workspaces/w/merged/etc/hosts", os.O_RDONLY))
        raise Interrupted

    monkeypatch.setattr(cp_verb, "_between", opened)
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            layerstore.cp("w:/etc/hosts", str(store.root.parent / "out"), root=store.root)
    finally:
        os.close(left_open[0])
    assert time.monotonic() - began < 20
    assert mounted(store.root) == []
    assert serving(store.root) == []


@pytest.mark.parametrize("step", ["umount", "mount"])
def test_chain_mounts_again(store: Cli, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    place = layerstore.mount("w", root=store.root)
    (place / "new").write_text("x")
    interrupt_after(monkeypatch, mounting, step)
    with pytest.raises(Interrupted):
        layerstore.commit("w", "c:1", chain=True, root=store.root)
    assert state(store) == "mounted"
    assert (place / "new").read_text() == "x"
    layerstore.umount("w", root=store.root)


def test_a_mount_is_taken_back_until_it_is_settled(store: Cli) -> None:
    def settled() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        layerstore.mount("w", root=store.root, settled=settled)
    assert mounted(store.root) == []
    assert state(store) == "created"


@pytest.mark.parametrize("step", ["mount", "settled"])
def test_so_is_one_of_an_image(store: Cli, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    place = store.root.parent / "image"
    place.mkdir()

    def settled() -> None:
        raise Interrupted

    if step == "mount":
        interrupt_after(monkeypatch, overlay, "mount")
    with pytest.raises(Interrupted):
        layerstore.mount("base:1", place, read_only=True, root=store.root, settled=settled)
    assert mounted(place.parent) == []
    assert mount_verb.mount("base:1", place, read_only=True, root=store.root) == place
    layerstore.umount(str(place), root=store.root)


def test_an_interrupted_umount_is_whole(store: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No mount is left without its binds."""
    store.run("create", "--name", "v", "-v", f"{tmp_path}:/data", "base:1")
    layerstore.mount("v", root=store.root)
    real = binds.unbind_all

    def interrupted(*words: Any) -> None:
        real(*words)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(binds, "unbind_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        layerstore.umount("v", root=store.root)
    assert mounted(store.root) == []


VERBS = {
    "import": ("import", "{where}/big.tar", "new:1"),
    "export": ("export", "-o", "{where}/out", "w"),
    "cp": ("cp", "{where}/big.tar", "w:/"),
    "commit": ("commit", "--chain", "w", "new:2"),
}
PLAYS = 5


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop_at_any_time(store: Cli, verb: str, number: int) -> None:
    """Twice, by somebody impatient: nothing is mounted, nothing runs, nothing temporary lies anywhere."""
    where = store.root.parent
    (where / "big.tar").write_bytes(store.call("save", "base:1").stdout)
    words = [word.format(where=where) for word in VERBS[verb]]
    began = time.monotonic()
    store.run(*words)
    whole = time.monotonic() - began
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    for play in range(PLAYS):
        process = store.start(*words, **pipes)
        wait_until_it_hears(process)
        time.sleep(whole * play / PLAYS)
        for _ in range(2):
            process.send_signal(number)
            time.sleep(0.01)
        _, said = process.communicate(timeout=30)
        assert process.returncode in {0, 128 + number, -number}, said.decode()
        assert b"Traceback" not in said
        assert said.count(b"\n") <= 1
        assert [path for path in where.rglob(".tmp-*") if path.exists()] == []
        assert mounted(where) == []
        assert serving(where) == []
        assert state(store) in {"created", "unmounted"}


def serving(where: Path) -> list[bytes]:
    """The command lines of what still runs here, after a moment."""
    deadline = time.monotonic() + 5
    while found := [line for line in command_lines() if b"overlayfs_py" in line and bytes(where) in line]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


def command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue
