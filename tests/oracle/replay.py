"""Do a printed sequence again: paste what a failure printed into a file, or call `replay`."""

from collections.abc import Sequence

from tests.mounts import engines
from tests.oracle.duel import duel
from tests.oracle.operations import Operation
from tests.oracle.sides import Side, kernel_side, overlay_side
from tests.oracle.stacks import StackSpec


def replay(
    stack: StackSpec, operations: Sequence[Operation], ours: Side | None = None, *, finish: bool = True
) -> None:
    """Run `operations` on kernel overlayfs and on ours; raises Disagreement at the first difference."""
    oracle, other = kernel_side(), ours or overlay_side(engines()[0])
    try:
        with duel(stack, oracle, other) as fight:
            for operation in operations:
                fight.step(operation)
            if finish:
                fight.finish()
    finally:
        for side in (oracle, other):
            side.end_workers()
