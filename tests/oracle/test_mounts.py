"""Our mount does what kernel overlayfs does: several users, every system call the engine can answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import flavours
from tests.oracle.machine import contest
from tests.oracle.profiles import fuzz_seeds, machine_settings, memory_pressure
from tests.oracle.sides import MountSide, kernel_side, overlay_side
from tests.oracle.walking import Walk

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.engine]

# What an engine's protocol has no message for.
CANNOT = {"pyfuse3": frozenset({"fallocate", "seek", "copy_range", "tmpfile"})}
# Every operation and every option of a stack comes within 24 walks. What is to come of them is the union's,
# which test_union walks further; passthrough is another way for the data of the native engine.
WALKS = {"native": 48, "pyfuse3": 32, "passthrough": 24, "writeback": 24}
EXAMPLES = {"native": 16, "pyfuse3": 16, "passthrough": 8, "writeback": 8}
CHUNK = 8


@pytest.fixture
def sides(engine: str, ground: Path) -> Iterator[tuple[MountSide, MountSide]]:
    oracle, ours = kernel_side(ground=ground), overlay_side(engine, ground=ground)
    yield oracle, ours
    oracle.end_workers()
    ours.end_workers()


def _walk(sides: tuple[MountSide, MountSide], engine: str, ground: Path) -> Walk:
    oracle, ours = sides
    return Walk(oracle=oracle, ours=ours, ground=ground, without=CANNOT.get(engine, frozenset()))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("engine", "first"),
    [(flavour, first) for flavour in flavours() for first in range(0, WALKS[flavour], CHUNK)],
)
def test_walks(sides: tuple[MountSide, MountSide], engine: str, ground: Path, first: int) -> None:
    """Fixed random walks, then each side mounts what the other made."""
    walk = _walk(sides, engine, ground)
    for seed in range(first, first + CHUNK):
        walk.run(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_machine(sides: tuple[MountSide, MountSide], engine: str, ground: Path) -> None:
    """The state machine, as Hypothesis explores it."""
    without = CANNOT.get(engine, frozenset())
    contest(lambda: sides, machine_settings(EXAMPLES[engine]), ground, without=without)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz(sides: tuple[MountSide, MountSide], engine: str, ground: Path) -> None:
    """New walks until the time is over, while the kernel forgets all the time."""
    walk = _walk(sides, engine, ground)
    with memory_pressure(*sides):
        for seed in fuzz_seeds():
            walk.run(seed)
