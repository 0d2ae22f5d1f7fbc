"""Two sides doing the same, compared as they go; and the cross-mounting at the end."""

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from tests import snapshots
from tests.mounts import scratch
from tests.oracle import reading
from tests.oracle.deviations import (
    excused,
    kernel_cannot,
    kernel_must_not,
    kernel_stopped_half_way,
    normalise_change,
    normalise_facts,
    normalise_outcome,
)
from tests.oracle.operations import Operation, Outcome, paths_of
from tests.oracle.sides import Side
from tests.oracle.stacks import StackSpec
from tests.snapshots import Facts, Snapshot, Status

_TICK_NS = 50_000_000


class Disagreement(AssertionError):
    """The two sides differ; `signature` says in what, for telling one difference from another."""

    def __init__(self, message: str, signature: object = None) -> None:
        super().__init__(message)
        self.signature = signature


class Duel:
    """`oracle` is right by definition; `ours` must do the same."""

    def __init__(self, stack: StackSpec, where: Path, oracle: Side, ours: Side) -> None:
        self.stack = stack
        self.sides = (oracle, ours)
        self.trace: list[Operation] = []
        self.watching = True
        self.held: dict[int, list[int]] = {}
        lowers = stack.make_lowers(where)
        self._layers = [stack.make_side(where / f"side{number}", lowers) for number in (0, 1)]
        self._start()

    def _start(self) -> None:
        for side, layers in zip(self.sides, self._layers, strict=True):
            side.start(layers, self.stack.options())

    def close(self) -> None:
        self.held.clear()
        for side in self.sides:
            side.stop()

    def step(self, operation: Operation) -> Outcome:
        """One operation on both sides, or one of the duel's own verbs."""
        self.trace.append(operation)
        user, name, *arguments = operation
        verb = self._verbs().get(str(name))
        if verb is not None:
            verb()
            return ("ok", None)
        assert isinstance(user, int)
        return self._operate(user, operation, str(name), tuple(arguments))

    def _verbs(self) -> dict[str, Callable[[], None]]:
        return {"compare": self.compare, "forget": self.forget, "remount": self.remount, "swap": self.swap}

    def _operate(self, user: int, operation: Operation, name: str, arguments: tuple[object, ...]) -> Outcome:
        if kernel_must_not(name, lambda: self._removed(user, arguments[0])):
            return self._operate(user, operation, "close", arguments[:1])
        # What was changed a tick of the clock ago may be changed again without a new time.
        tick = time.time_ns() - _TICK_NS
        watched = paths_of(name, arguments) if self.watching else []
        before = [[side.probe(path) for path in watched] for side in self.sides]
        upper = _names(self._layers[1].upper)
        outcomes = [side.run(user, name, arguments) for side in self.sides]
        after = [[side.probe(path) for path in watched] for side in self.sides]
        if kernel_cannot(name, outcomes[0]):
            return self._operate(user, operation, "close", arguments[:1])
        oracle, ours = (
            normalise_outcome(operation, outcome, self.stack, self.sides[1].name) for outcome in outcomes
        )
        if oracle != ours and not excused(operation, oracle, ours):
            self._fail(
                f"{operation!r}:\n  {self.sides[0].name}: {oracle!r}\n  {self.sides[1].name}: {ours!r}",
                (name, _kind(oracle), _kind(ours)),
            )
        if ours[0] == "error":
            self._refused_in_time(operation, ours, upper)
        half_way = kernel_stopped_half_way(name, oracle)
        for number, path in enumerate(watched):
            changes = [self._changed(before[side][number], after[side][number]) for side in (0, 1)]
            fresh = any(_mtime(before[side][number]) > tick for side in (0, 1))
            if fresh and set(changes) == {"mtime moved", "mtime kept"}:
                continue
            if changes == ["mtime kept", "mtime moved"] and self._moves_by_itself(after[1][number]):
                continue
            if changes[0] != changes[1] and not (half_way and changes[1] == "mtime kept"):
                self._fail(
                    f"{operation!r} -> {oracle!r}\n  changed {path!r} differently:\n"
                    f"  {self.sides[0].name}: {changes[0]}\n  {self.sides[1].name}: {changes[1]}",
                    (name, str(changes)),
                )
        if half_way:
            self._settle(name, arguments)
        self._note_held(user, name, arguments, oracle)
        return outcomes[0]

    def _removed(self, user: int, slot: object) -> tuple[Outcome, Outcome]:
        """Whether each side takes what this slot holds for a removed directory."""
        oracle, ours = (side.run(user, "is_removed", (slot,)) for side in self.sides)
        return oracle, ours

    def _moves_by_itself(self, seen: Status | str) -> bool:
        """A directory of a side whose file system removes names later than it was asked to."""
        return self.sides[1].moves_times and isinstance(seen, Status) and stat.S_ISDIR(seen.mode)

    def _refused_in_time(self, operation: Operation, outcome: Outcome, before: set[str]) -> None:
        """What fails leaves no more behind in the upper than it does in the oracle's."""
        oracle, ours = (_names(layers.upper) for layers in self._layers)
        if more := sorted(ours - before - oracle):
            self._fail(
                f"{operation!r} -> {outcome!r}\n  has copied up all the same: {more}", (operation[1], "upper")
            )

    def _settle(self, name: str, arguments: tuple[object, ...]) -> None:
        """Give what a failed operation may have touched one time on both sides again."""
        for path in paths_of(name, arguments):
            for side in self.sides:
                side.run(0, "touch", (path,))

    def _changed(self, before: Status | str, after: Status | str) -> object:
        return normalise_change(_change(before, after), after, self.stack, self.sides[1].name)

    def _note_held(self, user: int, name: str, arguments: tuple[object, ...], outcome: Outcome) -> None:
        """Which slots are open: drawing the next operation asks."""
        slots = self.held.setdefault(user, [])
        if name in {"open", "close"} and arguments[0] in slots:
            slots.remove(arguments[0])
        if name == "open" and outcome[0] == "ok" and outcome[1] != "special":
            slots.append(cast(int, arguments[0]))

    def snapshots(self) -> list[Snapshot]:
        """Of both. The kernel may give a number's wrong d_ino until the next mount; ours must not."""
        oracle, ours = (snapshots.take(side.reader()) for side in self.sides)
        return [{path: replace(entry, d_ino_right=True) for path, entry in oracle.items()}, ours]

    def compare(self) -> None:
        """Both trees, whole."""
        self._agree(*self.snapshots(), names=(self.sides[0].name, self.sides[1].name))

    def forget(self) -> None:
        for side in self.sides:
            side.forget()

    def remount(self) -> None:
        """Unmount and mount again: nothing may change, inode numbers of non-directories included."""
        before = self.snapshots()
        self.close()
        for shown, layers, side in zip(before, self._layers, self.sides, strict=True):
            if not side.moves_times:  # else its upper is seen through another file system only
                self._report(reading.compare(shown, layers, self.stack.options()))
        self._start()
        after = self.snapshots()
        for number, side in enumerate(self.sides):
            names = (side.name, f"{side.name} mounted again")
            self._unchanged(before[number], after[number], names, times=not side.moves_times)

    def swap(self) -> None:
        """Each side mounts what the other made; the trees must not change by it."""
        before = self.snapshots()
        self.close()
        self._layers.reverse()
        self._start()
        before.reverse()
        after = self.snapshots()
        names = [f"{side.name}'s upper" for side in reversed(self.sides)]
        for number, side in enumerate(self.sides):
            self._agree(before[number], after[number], names=(names[number], f"the same by {side.name}"))

    def finish(self) -> None:
        """The end of a sequence: compare, mount again, then each with the other's upper."""
        for verb in ("compare", "remount", "swap"):
            self.step((0, verb))

    def _unchanged(self, before: Snapshot, after: Snapshot, names: tuple[str, str], *, times: bool) -> None:
        left, right = (_exact(snapshot, times=times) for snapshot in (before, after))
        self._report(snapshots.differences(left, right, names))

    def _agree(self, left: Snapshot, right: Snapshot, *, names: tuple[str, str]) -> None:
        ours, theirs = (
            {
                path: normalise_facts(path, entry, self.stack, self.sides[1].name)
                for path, entry in snapshots.facts(snapshot).items()
            }
            for snapshot in (left, right)
        )
        self._report(snapshots.differences(ours, theirs, names))

    def _report(self, lines: Sequence[str]) -> None:
        if lines:
            kind = re.sub(r"^.*' ([\w ]+): .*$", r"\1", lines[0], flags=re.DOTALL)
            self._fail("\n  ".join(["the trees differ:", *lines[:40]]), ("trees", kind[:20]))

    def _fail(self, message: str, signature: object) -> None:
        explained = "".join(f"\n{said}" for side in self.sides if (said := side.explain()))
        raise Disagreement(f"{message}{explained}\n{self.reproduction()}", signature)

    def reproduction(self) -> str:
        """Python that does it again: paste it behind the imports of tests/oracle/replay.py."""
        steps = "".join(f"    {operation!r},\n" for operation in self.trace)
        text = f"replay({self.stack!r}, [\n{steps}])"
        # Runs of one letter, as names and contents have them, are written as a product.
        return re.sub(r"([a-z])\1{39,}", lambda run: f"' + b'{run[1]}' * {len(run[0])} + b'", text)

    def oracle_paths(self) -> dict[bytes, int]:
        """Every path of the oracle's tree with its mode, for drawing the next operation."""
        return {path: entry.status.mode for path, entry in snapshots.take(self.sides[0].reader()).items()}


def _names(top: Path) -> set[str]:
    """Every path below `top`."""
    return {
        f"{where}/{name}"[len(str(top)) :] for where, dirs, files in os.walk(top) for name in dirs + files
    }


def _mtime(seen: Status | str) -> int:
    return seen.mtime_ns if isinstance(seen, Status) else 0


def _kind(outcome: Outcome) -> object:
    return outcome[1] if outcome[0] == "error" else outcome[0]


def _exact(snapshot: Snapshot, *, times: bool) -> dict[bytes, Facts]:
    """Facts with inode numbers; a merged directory's number and nlink may change on a copy-up only.

    Without `times` those of directories are left out.
    """
    facts = snapshots.facts(snapshot)
    for path, entry in snapshot.items():
        facts[path]["ino"] = entry.status.ino
        if not times and facts[path]["type"] == "d":
            facts[path]["mtime"] = None
    return facts


def _change(before: Status | str, after: Status | str) -> object:
    """How a step changed one path: what became of it, its identity, whether its mtime moved."""
    if isinstance(before, str) or isinstance(after, str):
        return before if isinstance(before, str) else "there", after if isinstance(after, str) else "there"
    if before.ino != after.ino:
        # Two files made in one tick of the clock have one time: nothing to compare.
        return "another inode"
    return "mtime moved" if before.mtime_ns != after.mtime_ns else "mtime kept"


@contextlib.contextmanager
def duel(stack: StackSpec, oracle: Side, ours: Side, *, ground: Path | None = None) -> Iterator[Duel]:
    """A duel in its own scratch directory."""
    with scratch(under=ground) as where:
        fight = None
        try:
            fight = Duel(stack, where, oracle, ours)
            yield fight
        finally:
            if fight is not None:
                fight.close()
            else:
                oracle.stop()
                ours.stop()
