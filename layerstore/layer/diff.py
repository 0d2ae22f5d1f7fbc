"""What changed between a stack and what lies below it (skeleton: signatures only)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from layerstore.errors import printable
from layerstore.layer.stack import Stack


@dataclass(frozen=True, slots=True)
class Change:
    """One line of ``diff``: A(dded), C(hanged) or D(eleted); `path` is relative to the root, no leading slash."""

    kind: Literal["A", "C", "D"]
    path: bytes

    def __str__(self) -> str:
        return f"{self.kind} /{printable(self.path)}"


def changes(stack: Stack, *, exclude: Collection[bytes] = ()) -> Iterator[Change]:
    """What `stack.upper` changes in `stack.lowers`, in docker's sense and order; costs what the upper costs."""
    raise NotImplementedError


def changes_between(old: Stack, new: Stack) -> Iterator[Change]:
    """What to do to the merged tree of `old` to get that of `new`; layers they share at the bottom are not read."""
    raise NotImplementedError
