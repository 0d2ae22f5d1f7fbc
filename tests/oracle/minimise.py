"""Make a failing sequence short: drop operations, then layers' entries, as long as it fails alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests import trees
from tests.oracle.operations import Operation
from tests.oracle.stacks import StackSpec

T = TypeVar("T")
Fails = Callable[[StackSpec, Sequence[Operation]], bool]


def minimise(
    stack: StackSpec, operations: Sequence[Operation], fails: Fails, *, seconds: float
) -> tuple[StackSpec, list[Operation]]:
    """The shortest failing sequence found in the time; `fails` runs one from scratch."""
    deadline = time.monotonic() + seconds
    kept = list(operations)
    if not fails(stack, kept):
        return stack, kept
    kept = _drop(kept, lambda fewer: fails(stack, fewer), deadline)
    for smaller in _smaller_stacks(stack):
        if time.monotonic() > deadline:
            break
        stack = smaller(stack) if fails(smaller(stack), kept) else stack
    for number in range(len(stack.lowers)):
        stack = _thin_lower(stack, number, lambda smaller: fails(smaller, kept), deadline)
    return stack, _drop(kept, lambda fewer: fails(stack, fewer), deadline)


def _thin_lower(
    stack: StackSpec, number: int, fails: Callable[[StackSpec], bool], deadline: float
) -> StackSpec:
    def without(entries: list[tuple[trees.Path, trees.Entry]]) -> StackSpec:
        lowers = list(stack.lowers)
        lowers[number] = dict(entries)
        return replace(stack, lowers=tuple(lowers))

    return without(_drop(list(stack.lowers[number].items()), lambda fewer: fails(without(fewer)), deadline))


def _drop(items: list[T], fails: Callable[[list[T]], bool], deadline: float) -> list[T]:
    """Leave out ever smaller runs of items, from the end."""
    size = max(1, len(items) // 2)
    while True:
        at = len(items) - size
        while at >= 0 and time.monotonic() < deadline:
            fewer = items[:at] + items[at + size :]
            if fails(fewer):
                items = fewer
            at -= size
        if size == 1 or time.monotonic() >= deadline:
            return items
        size //= 2


def _smaller_stacks(stack: StackSpec) -> list[Callable[[StackSpec], StackSpec]]:
    """Simplifications to try, each on what is left by then."""
    tries: list[Callable[[StackSpec], StackSpec]] = [
        lambda now: replace(now, grown=()),
        lambda now: replace(now, grown=now.grown[1:]),
        lambda now: replace(now, grown=now.grown[:-1]),
        lambda now: replace(now, metacopy="off"),
        lambda now: replace(now, redirect_dir="off", metacopy="off"),
        lambda now: replace(now, index="off"),
    ]
    tries += [lambda now: replace(now, lowers=now.lowers[1:] or now.lowers)] * (len(stack.lowers) - 1)
    tries += [lambda now: replace(now, lowers=now.lowers[:-1] or now.lowers)] * (len(stack.lowers) - 1)
    return tries
