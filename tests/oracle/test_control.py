"""The harness itself: kernel overlayfs agrees with itself, and a wrong variant is caught."""

from pathlib import Path

import pytest

from tests import trees
from tests.oracle.duel import Disagreement, duel
from tests.oracle.machine import contest
from tests.oracle.profiles import machine_settings
from tests.oracle.sides import MountSide, kernel_side
from tests.oracle.stacks import StackSpec

pytestmark = [pytest.mark.root]

STACK = StackSpec(
    lowers=({"d": trees.Dir(), "d/f": trees.File(b"lower"), "g": trees.File(b"g", mode=0o4755)},)
)


def _agree(*operations: tuple[object, ...], stack: StackSpec = STACK, wrong: MountSide | None = None) -> None:
    oracle, other = kernel_side(), wrong or kernel_side("kernel again")
    try:
        with duel(stack, oracle, other) as fight:
            for operation in operations:
                fight.step(operation)
            fight.finish()
    finally:
        oracle.end_workers()
        other.end_workers()


def test_kernel_agrees_with_itself(ground: Path) -> None:
    """Random sequences on two kernel mounts never differ: what does is the harness's own noise."""
    oracle, other = kernel_side(), kernel_side("kernel again")
    try:
        contest(lambda: (oracle, other), machine_settings(25), ground)
    finally:
        oracle.end_workers()
        other.end_workers()


def test_other_errno_is_caught() -> None:
    """A side without redirect_dir gives EXDEV where the other renames."""
    stack = StackSpec(lowers=STACK.lowers, redirect_dir="on")
    with pytest.raises(Disagreement, match="EXDEV"):
        _agree((0, "rename", b"d", b"e", 0), stack=stack, wrong=kernel_side("wrong", redirect_dir="off"))


def test_other_content_is_caught() -> None:
    """A side without index breaks a lower hard link on copy-up."""
    stack = StackSpec(lowers=({"a": trees.File(b"x"), "b": trees.Link("a")},), index="on")
    with pytest.raises(Disagreement, match="another inode"):
        _agree((0, "truncate", b"a", 5), (0, "compare"), stack=stack, wrong=kernel_side("wrong", index="off"))


def test_failure_prints_a_replay() -> None:
    """What a failure prints is Python that does the sequence again."""
    stack = StackSpec(lowers=STACK.lowers, redirect_dir="on")
    with pytest.raises(Disagreement) as caught:
        _agree((0, "rename", b"d", b"e", 0), stack=stack, wrong=kernel_side("wrong", redirect_dir="off"))
    text = str(caught.value)
    again: list[tuple[StackSpec, list[tuple[object, ...]]]] = []
    names = {"replay": lambda stack, steps: again.append((stack, steps)), "StackSpec": StackSpec}
    exec(text[text.index("replay(") :], {**names, **vars(trees)})
    assert again == [(stack, [(0, "rename", b"d", b"e", 0)])]
