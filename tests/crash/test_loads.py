"""kill -9 while programs write: every file is old or new as a whole, and nothing else is there."""

import contextlib
import faulthandler
import multiprocessing
import os
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.killing import left_behind, view
from tests.crash.loads import LOADS, Load
from tests.mounts import KernelMount, Layers, OverlayMount, make_layers, scratch
from tests.oracle import crowd

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.engine]

ROUNDS = int(os.environ.get("CRASH_LOAD_ROUNDS", "3"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
LONGEST = 0.4  # seconds a load runs at most before the daemon dies: copy-ups come first

# Names a load makes itself: temporary files before their rename, SQLite's journals.
OWN = re.compile(r"\.f\d\d\.tmp|bank\.db-(journal|wal|shm)")


def _run(load: Load, top: Path) -> None:
    faulthandler.disable()  # a mapping of a dead mount is a signal, as it should be
    with contextlib.suppress(Exception):
        load.run(top)
    os._exit(0)


def _with_crowd(layers: Layers, ground: Path) -> Layers:
    """With the files below that FILES asks for."""
    return replace(layers, lowers=(*layers.lowers, crowd.lower(ground))) if crowd.FILES else layers


def _die(layers: Layers, load: Load, engine: str, delay: float) -> None:
    """Start the load, kill the daemon after `delay` seconds, take the dead mount away."""
    program = multiprocessing.get_context("fork").Process(target=_run, args=(load, layers.merged))
    with OverlayMount(layers, engine=engine) as mount:
        if crowd.FILES:
            crowd.meet(mount.root)
        program.start()
        try:
            time.sleep(delay)
            mount.kill()
        finally:
            program.join(1)
            program.kill()
            program.join(20)
            mount.clear()


def _check(layers: Layers, load: Load, engine: str) -> None:
    """By ours: no stray name, no fault; then the kernel sees the same tree."""
    with OverlayMount(layers, engine=engine) as mount:
        ours = view(mount.root)
        names = {name for name in os.listdir(layers.merged) if not OWN.fullmatch(name)}
        names.discard(os.fsdecode(crowd.NAME))
        assert names == set(os.listdir(layers.lowers[0]))
        assert left_behind(layers) == []
    with KernelMount(layers) as kernel:
        assert view(kernel.root) == ours
    with OverlayMount(layers, engine=engine):
        assert load.faults(layers.merged) == []


def _play(engine: str, ground: Path, name: str, rounds: int) -> None:
    load, chance = LOADS[name], random.Random(f"{SEED} {engine} {name} {rounds}")
    for number in range(rounds):
        delay = chance.uniform(0, LONGEST)
        with scratch(under=ground) as where:
            layers = _with_crowd(make_layers(where), ground)
            load.prepare(layers.lowers[0])
            _die(layers, load, engine, delay)
            try:
                _check(layers, load, engine)
            except AssertionError as error:
                raise AssertionError(f"round {number}, killed after {delay:.3f} s: {error}") from None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LOADS)
def test_killed_under_load(engine: str, ground: Path, name: str) -> None:
    """Old or new as a whole, whenever it happens."""
    _play(engine, ground, name, ROUNDS)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", LOADS)
def test_killed_under_load_often(engine: str, ground: Path, name: str) -> None:
    """The same, fifty times."""
    _play(engine, ground, name, 50)
