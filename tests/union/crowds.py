"""Many files and few descriptors: what the tests of descriptors share; with the fixture `few_descriptors`."""

import os
from collections.abc import Iterator

from tests.trees import File, Tree

SHARE = 4
MANY = 60
# Two kinds of cached ones with what one operation may add to them, and the held ones.
BOUND = 4 * SHARE + 8


def _count() -> int:
    return len(os.listdir("/proc/self/fd"))


class Watch:
    """How many more descriptors there are than when the union was opened."""

    def __init__(self) -> None:
        self._before = _count()

    def check(self) -> None:
        assert _count() - self._before <= BOUND


def many_names(prefix: str = "f") -> Iterator[bytes]:
    return (b"%s%d" % (prefix.encode(), number) for number in range(MANY))


def many_files(mode: int = 0o644) -> Tree:
    return {os.fsdecode(name): File(b"lower " + name, mode=mode) for name in many_names()}
