"""A random walk from a seed: the same operations as the state machine, without Hypothesis around them.

It is what a long run does most, and what checks the union without a mount: thousands of sequences,
each named by its seed alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.oracle.drawing import FAMILIES, MADE_NAMES, left_out, next_operation, random_stack, well_formed
from tests.oracle.duel import Disagreement, Duel, duel
from tests.oracle.minimise import minimise
from tests.oracle.operations import Operation
from tests.oracle.sides import Side
from tests.oracle.stacks import StackSpec

VERBS = ("compare", "compare", "forget", "forget", "remount", "swap")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What walks have in common."""

    oracle: Side
    ours: Side
    ground: Path
    steps: int = 40
    without: frozenset[str] = frozenset()
    single_user: bool = False
    without_index: bool = False
    minimise_seconds: float = 60.0

    def run(self, seed: int) -> None:
        """One walk; a disagreement is made short first, and says its seed."""
        chance = random.Random(seed)
        stack, watching = random_stack(chance), chance.random() < 0.5
        if self.without_index:
            stack = replace(stack, index="off")
        done: list[Operation] = []
        try:
            with duel(stack, self.oracle, self.ours, ground=self.ground) as fight:
                done = fight.trace
                fight.watching = watching
                self._go(fight, chance)
        except Exception as error:
            raise Disagreement(f"seed {seed}: {self._shorter(stack, done, watching, error)}") from None

    def _go(self, fight: Duel, chance: random.Random) -> None:
        without = left_out(chance, self.without)
        families = chance.sample(sorted(FAMILIES), chance.randint(2, len(FAMILIES)))
        fight.step((0, "compare"))
        for _ in range(self.steps):
            if chance.random() < 0.06:
                fight.step((0, chance.choice(VERBS)))
                continue
            family = chance.choice(families)
            tree = fight.oracle_paths()
            operation = next_operation(
                chance, tree, family, fight.held, without, MADE_NAMES[fight.stack.redirect_dir]
            )
            fight.step((0, *operation[1:]) if self.single_user else operation)
        fight.finish()

    def _shorter(self, stack: StackSpec, done: Sequence[Operation], watching: bool, error: Exception) -> str:
        """The message of the shortest sequence that fails in the same way."""
        last = f"{type(error).__name__}: {error}"
        kind = _signature(error)

        def fails(stack: StackSpec, operations: Sequence[Operation]) -> bool:
            nonlocal last
            found = self._failure(stack, operations, watching) if well_formed(stack.lowers) else None
            if found is None or _signature(found) != kind:
                return False
            last = str(found) if isinstance(found, Disagreement) else f"{found!r}\n{_text(stack, operations)}"
            return True

        minimise(stack, done, fails, seconds=self.minimise_seconds)
        return last

    def _failure(self, stack: StackSpec, operations: Sequence[Operation], watching: bool) -> Exception | None:
        try:
            with duel(stack, self.oracle, self.ours, ground=self.ground) as fight:
                fight.watching = watching
                for operation in operations:
                    fight.step(operation)
        except Exception as error:
            return error
        return None


def _signature(error: Exception) -> object:
    """What must stay the same while a sequence is made shorter."""
    return error.signature if isinstance(error, Disagreement) else (type(error), str(error)[:40])


def _text(stack: StackSpec, operations: Sequence[Operation]) -> str:
    return f"replay({stack!r}, {list(operations)!r})"
