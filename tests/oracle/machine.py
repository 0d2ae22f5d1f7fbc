"""The state machine: draws a stack, then operations, and lets a duel judge each."""

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.mounts import scratch
from tests.oracle.drawing import FAMILIES, NAMES, left_out, next_operation, random_stack
from tests.oracle.duel import Duel
from tests.oracle.sides import Side
from tests.oracle.stacks import StackSpec

SEEDS = st.integers(0, (1 << 64) - 1)
Sides = Callable[[], tuple[Side, Side]]


class OracleMachine(RuleBasedStateMachine):
    """Subclasses say which sides fight; see `contest`."""

    sides: Sides
    ground: Path
    without: frozenset[str] = frozenset()
    single_user = False

    def __init__(self) -> None:
        super().__init__()
        self.duel: Duel | None = None
        self._scratch = ExitStack()
        self._failed = False
        self._seed = 0
        self._crossings = 0

    @initialize(seed=SEEDS, watching=st.booleans())
    def mount(self, seed: int, watching: bool) -> None:
        self._seed = seed
        self._guarded(lambda: self._mount(random_stack(random.Random(seed)), watching))

    def _mount(self, stack: StackSpec, watching: bool) -> None:
        oracle, ours = type(self).sides()
        self.duel = Duel(stack, self._scratch.enter_context(scratch(under=self.ground)), oracle, ours)
        self.duel.watching = watching
        self.duel.compare()

    def _guarded(self, do: Callable[[], object]) -> None:
        """After a failure, teardown must only clean up."""
        try:
            do()
        except BaseException:
            self._failed = True
            raise

    def _act(self, seed: int, family: str) -> None:
        assert self.duel is not None
        fight = self.duel
        # The step's number keeps equal seeds, which Hypothesis likes, from meaning equal choices.
        chance = random.Random(f"{self._seed} {len(fight.trace)} {seed}")
        without = left_out(random.Random(self._seed), self.without)
        operation = next_operation(
            chance, fight.oracle_paths(), family, fight.held, without, NAMES[fight.stack.redirect_dir]
        )
        if self.single_user:
            operation = (0, *operation[1:])
        self._guarded(lambda: fight.step(operation))

    @rule()
    def compare(self) -> None:
        self._verb("compare")

    @rule()
    def forget(self) -> None:
        self._verb("forget")

    @precondition(lambda self: self._crossings < 1)
    @rule(verb=st.sampled_from(("remount", "swap")))
    def cross(self, verb: str) -> None:
        self._crossings += 1
        self._verb(verb)

    def _verb(self, verb: str) -> None:
        assert self.duel is not None
        fight = self.duel
        self._guarded(lambda: fight.step((0, verb)))

    def teardown(self) -> None:
        try:
            if self.duel is not None and not self._failed:
                self.duel.finish()
        finally:
            with self._scratch:
                if self.duel is not None:
                    self.duel.close()


def _family_rule(family: str) -> Any:
    def act(self: OracleMachine, seed: int) -> None:
        self._act(seed, family)

    act.__name__ = family
    return rule(seed=SEEDS)(act)


# One rule for each family; the common ones twice, so that they come twice as often.
for _family in FAMILIES:
    setattr(OracleMachine, f"do_{_family}", _family_rule(f"{_family}"))
for _family in ("names", "rename", "open", "data"):
    setattr(OracleMachine, f"do_{_family}_too", _family_rule(f"{_family}"))


def contest(
    sides: Sides,
    profile: settings,
    ground: Path,
    *,
    without: frozenset[str] = frozenset(),
    single_user: bool = False,
) -> None:
    """Run the machine with these sides under a profile; its directories are made under `ground`."""
    chosen = {"sides": staticmethod(sides), "ground": ground, "without": without, "single_user": single_user}
    machine = type("Contest", (OracleMachine,), chosen)
    run_state_machine_as_test(machine, settings=profile)


def chosen_seed() -> int:
    """The seed of this run: printed, and given again by HYPOTHESIS_SEED."""
    return int(os.environ.get("HYPOTHESIS_SEED", "0"))
