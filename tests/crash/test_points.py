"""kill -9 on entering the n-th system call of one operation: the tree is the old or the new one, whole."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests import snapshots, trees
from tests.crash.killing import killed_at, view, views_after
from tests.crash.points import POINTS, Point
from tests.mounts import Layers, OverlayMount, make_layers, scratch
from tests.oracle.workers import USERS, Worker

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

# How many of an operation's system calls die in `make test`; CRASH_ROUNDS=0 takes every one.
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))
SEED = int(os.environ.get("CRASH_SEED", "1"))


def _do(
    layers: Layers, point: Point, engine: str, operations: tuple[tuple[object, ...], ...], die_at: int
) -> bool:
    """Run operations on a mount whose daemon dies on the way (0: does not); whether it lived."""
    worker = Worker(USERS[0])
    try:
        with OverlayMount(layers, point.options, engine=engine) as mount:
            assert mount.process is not None
            worker.attach(mount.root)
            if die_at == 0:
                for _user, name, *arguments in operations:
                    assert worker.run(str(name), tuple(arguments))[0] == "ok"
            else:
                with killed_at(mount.process.pid, die_at):
                    for _user, name, *arguments in operations:
                        worker.run(str(name), tuple(arguments))
            worker.attach(None)
            lived = mount.process.poll() is None
            if not lived:
                mount.clear()
            return lived
    finally:
        worker.stop()


def _fresh(where: Path, point: Point, engine: str) -> Layers:
    where.mkdir()
    where.chmod(0o755)
    layers = make_layers(where)
    trees.build(layers.lowers[0], point.lower)
    if point.before:
        _do(layers, point, engine, point.before, 0)
    return layers


def _view(layers: Layers, point: Point, engine: str) -> dict[bytes, snapshots.Facts]:
    with OverlayMount(layers, point.options, engine=engine) as mount:
        return view(mount.root)


def _round(
    where: Path, point: Point, engine: str, number: int, allowed: list[dict[bytes, snapshots.Facts]]
) -> bool:
    """One death; whether the operation was over before it."""
    layers = _fresh(where / str(number), point, engine)
    lived = _do(layers, point, engine, (point.operation,), number)
    for name, seen in zip(("ours", "kernel"), views_after(layers, point.options, engine), strict=True):
        if seen not in allowed:
            differences = [
                snapshots.differences(state, seen, (what, name))
                for state, what in zip(allowed, ("old", "new"), strict=True)
            ]
            raise AssertionError(
                f"dead at system call {number}, neither old nor new by {name}: {differences}"
            )
    return lived


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", POINTS)
def test_dies_at_a_system_call(engine: str, name: str) -> None:
    """Old or new, by ours and by the kernel, with nothing left behind."""
    point = POINTS[name]
    with scratch() as where:
        layers = _fresh(where / "whole", point, engine)
        old = _view(layers, point, engine)
        _do(layers, point, engine, (point.operation,), 0)
        allowed = [old, _view(layers, point, engine)]
        if ROUNDS:
            chance = random.Random(f"{SEED} {name}")
            for number in sorted(chance.sample(range(4, 60), ROUNDS)):
                _round(where, point, engine, number, allowed)
            return
        number = 1
        while not _round(where, point, engine, number, allowed):
            number += 1
        print(f"{name}: {number} system calls")
