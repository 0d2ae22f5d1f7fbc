"""Make a failing sequence short: drop operations, then layers' entries, as long as it fails alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests import trees
from tests.oracle.operations import Operation
from tests.oracle.stacks import Stack

T = TypeVar("T")
Fails = Callable[[Stack, Sequence[Operation]], bool]


def minimise(
    stack: Stack, operations: Sequence[Operation], fails: Fails, *, seconds: float
) -> tuple[Stack, list[Operation]]:
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


def _thin_lower(stack: Stack, number: int, fails: Callable[[Stack], bool], deadline: float) -> Stack:
    def without(entries: list[tuple[trees.Path, trees.Entry]]) -> Stack:
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


def _smaller_stacks(stack: Stack) -> list[Callable[[Stack], Stack]]:
    """Simplifications to try, each on what is left by then."""
    tries: list[Callable[[Stack], Stack]] = [
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
