"""The names of a directory in the order of a number made from each, its cookie: as ext4 lists them.

A reader that continues behind a cookie misses nothing that was there all the time and sees nothing twice,
whatever was added or removed meanwhile. Names are held once, in short sorted runs, so that a change costs
microseconds however many there are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

_BITS = 40  # which leaves room in a cookie for bits of the engine
_MASK = (1 << _BITS) - 1
_FEW = 4  # each cookie has this bit: smaller numbers are others' (. and ..)
_RUN, _LONGEST = 512, 2048
_AT_ONCE = 2048


def _made_from(name: bytes) -> int:
    """The cookie of a name, as long as no other name has the same: next to always."""
    return hash(name) & _MASK | _FEW


class NameOrder:
    """`names`, ordered at once. A removed name gives up its cookie, the others keep theirs for ever."""

    __slots__ = ("_bounds", "_later", "_moved", "_runs", "_steps")

    def __init__(self, names: Collection[bytes] = ()) -> None:
        self._begin(names)
        self.complete()

    @classmethod
    def begun(cls, names: Collection[bytes]) -> "tuple[NameOrder, Iterator[None]]":
        """One that is complete when the iterator is exhausted, in steps of a millisecond."""
        made = cls.__new__(cls)
        made._begin(names)
        assert made._steps is not None
        return made, made._steps

    def complete(self) -> None:
        """Do what is left to do of that."""
        if self._steps is not None:
            for _ in self._steps:
                pass

    def _begin(self, names: Collection[bytes]) -> None:
        count = len(names) // _RUN + 1
        width = (_MASK | _FEW) // count + 1
        self._bounds = [width * (n + 1) for n in range(count)]  # the largest cookie that a run may hold
        self._runs: list[list[bytes]] = [[] for _ in range(count)]
        self._moved: dict[bytes, int] = {}  # cookies of names whose own was another's already
        self._later: list[tuple[bytes, bool]] | None = []  # added or removed before it is complete
        self._steps: Iterator[None] | None = self._fill(names, width)

    def _fill(self, names: Iterable[bytes], width: int) -> Iterator[None]:
        runs = self._runs
        for done, name in enumerate(names):
            runs[(_made_from(name) - 1) // width].append(name)
            if done % _AT_ONCE == _AT_ONCE - 1:
                yield
        for done, run in enumerate(runs):
            self._sort(run)
            if done % 4 == 3:
                yield
        later, self._later, self._steps = self._later or [], None, None
        for name, is_there in later:
            (self.add if is_there else self.remove)(name)

    def _sort(self, run: list[bytes]) -> None:
        run.sort(key=_made_from)
        twins = [b for a, b in pairwise(run) if _made_from(a) == _made_from(b)]
        for name in twins:
            run.remove(name)
            assert self._later is not None
            self._later.append((name, True))

    def cookie(self, name: bytes) -> int:
        """The number of a name that is there."""
        return self._moved.get(name) or _made_from(name)

    def add(self, name: bytes) -> None:
        """Take in a name that is not there."""
        if self._later is not None:
            self._later.append((name, True))
            return
        cookie = _made_from(name)
        while True:
            at = bisect_left(self._bounds, cookie)
            run = self._runs[at]
            place = bisect_left(run, cookie, key=self.cookie)
            if place == len(run) or self.cookie(run[place]) != cookie:
                break
            cookie = cookie + 1 if cookie < self._bounds[-1] else _FEW
            self._moved[name] = cookie
        run.insert(place, name)
        if len(run) > _LONGEST:
            self._split(at)

    def _split(self, at: int) -> None:
        run = self._runs[at]
        half = len(run) // 2
        self._runs[at : at + 1] = [run[:half], run[half:]]
        self._bounds.insert(at, self.cookie(run[half - 1]))

    def remove(self, name: bytes) -> None:
        """Let go a name that is there."""
        if self._later is not None:
            self._later.append((name, False))
            return
        cookie = self.cookie(name)
        run = self._runs[bisect_left(self._bounds, cookie)]
        del run[bisect_left(run, cookie, key=self.cookie)]
        self._moved.pop(name, None)

    def after(self, cookie: int, most: int) -> list[tuple[int, bytes]]:
        """The next names behind `cookie`, with theirs; at most so many, none at the end."""
        found: list[tuple[int, bytes]] = []
        at = bisect_left(self._bounds, cookie + 1)
        while at < len(self._runs) and len(found) < most:
            run = self._runs[at]
            start = 0 if found else bisect_right(run, cookie, key=self.cookie)
            found += [(self.cookie(name), name) for name in run[start : start + most - len(found)]]
            at += 1
        return found
