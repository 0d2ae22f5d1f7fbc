"""`union.Overlay` without a mount does what kernel overlayfs does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import trees
from tests.oracle.duel import duel
from tests.oracle.machine import contest
from tests.oracle.profiles import fuzz_seeds, machine_settings
from tests.oracle.sides import kernel_side
from tests.oracle.stacks import StackSpec
from tests.oracle.union_side import UnionSide
from tests.oracle.walking import Walk

pytestmark = [pytest.mark.root]

# Mappings are the kernel's own; users are its permission checks.
WITHOUT = frozenset({"map_read", "map_write"})
CHUNKS, WALKS = 6, 100


@pytest.fixture(scope="module")
def walk(ground: Path) -> Iterator[Walk]:
    oracle = kernel_side()
    yield Walk(oracle=oracle, ours=UnionSide(), ground=ground, without=WITHOUT, single_user=True)
    oracle.end_workers()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_walks(walk: Walk, chunk: int) -> None:
    """Fixed random walks: each seed is a stack and forty operations."""
    for seed in range(chunk * WALKS, (chunk + 1) * WALKS):
        walk.run(seed)


@pytest.mark.timeout(200)
def test_machine(ground: Path) -> None:
    """The state machine, as Hypothesis explores it."""
    oracle = kernel_side()
    try:
        contest(
            lambda: (oracle, UnionSide()), machine_settings(100), ground, without=WITHOUT, single_user=True
        )
    finally:
        oracle.end_workers()


def test_xattr_whiteouts(ground: Path) -> None:
    """Read alike in lists and lookups, at the root, in merged and in opaque directories."""
    top = {
        "a": trees.Whiteout(form="xattr"),
        "d/x": trees.Whiteout(form="xattr"),
        "d/new": trees.File(b"new"),
        "e/sub/y": trees.Whiteout(form="xattr"),
    }
    bottom = {
        "a": trees.File(),
        "b": trees.File(),
        "d/x/deep": trees.File(),
        "e/sub/y": trees.File(),
        "e/z": trees.File(),
    }
    oracle = kernel_side()
    with duel(StackSpec(lowers=(top, bottom)), oracle, UnionSide(), ground=ground) as fight:
        fight.step((0, "mkdir", b"a", 0o755))
        fight.step((0, "rename", b"d/new", b"d/x", 0))
        fight.finish()
    oracle.end_workers()


def test_a_held_directory_that_another_has_replaced(ground: Path) -> None:
    """Changing it is no copy-up over the other one, as in the kernel, which is spared it here."""
    stack = StackSpec(lowers=({"old": trees.Dir(), "new": trees.Dir(mode=0o700)},), redirect_dir="on")
    oracle = kernel_side()
    with duel(stack, oracle, UnionSide(), ground=ground) as fight:
        fight.step((0, "open", 0, b"old", 0, 0))
        fight.step((0, "rename", b"new", b"old", 0))
        fight.step((0, "fsetxattr", 0, b"trusted.two", b"secret"))
        fight.step((0, "rename", b"old", b"moved", 0))
        fight.finish()
    oracle.end_workers()


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_fuzz(walk: Walk) -> None:
    """New walks until the time is over."""
    for seed in fuzz_seeds():
        walk.run(seed)
