"""The processes of test_listing_races.py: those who list a directory in all manners, and who changes it.

By hand: `listers.py change DIRECTORY ROUNDS SEED`, beside several `listers.py list DIRECTORY SEED`.
"""

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import rawcalls

NAMES = 400
_SELDOM = 100  # rounds
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def list_always(directory: str, seed: str) -> None:
    """List it again and again; some listings are left off in the middle, others go on after a while."""
    chance = random.Random(seed)
    kept_fd = os.open(directory, os.O_RDONLY)
    while True:
        match chance.randrange(6):
            case 0:
                os.listdir(directory)
            case 1:
                _look(directory, chance)
            case 2:
                os.lseek(kept_fd, 0, os.SEEK_SET)
                _read(kept_fd, chance.choice([300, 1000, 4096, 32768]), 1 << 30)
            case 3:
                os.lseek(kept_fd, 0, os.SEEK_SET)
                _read(kept_fd, 2048, chance.randrange(8))
            case 4:
                _read(kept_fd, 32768, 1)  # goes on where it was
            case 5:
                fd = os.open(directory, os.O_RDONLY)
                _read(fd, 8192, chance.randrange(6))
                os.close(fd)


def _read(fd: int, size: int, times: int) -> None:
    while times and rawcalls.getdents(fd, size):
        times -= 1


def _look(directory: str, chance: random.Random) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if chance.random() < 0.02:
                with contextlib.suppress(FileNotFoundError):
                    entry.stat(follow_symlinks=False)


class Changer:
    """Makes, renames and removes names of a directory, and looks after each change what is there."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self._top = directory
        self._chance = chance
        self._there = {f"s{n}" for n in range(NAMES)}
        for name in self._there:
            (directory / name).touch()
        self.rounds = 0

    def _path(self, name: str) -> Path:
        return self._top / name

    def _new_name(self) -> str:
        return f"c{self._chance.randrange(10**9)}"

    def changes(self) -> Iterator[str]:
        """One change after the other: what was done."""
        makes: list[Callable[[Path], object]] = [
            Path.touch,
            Path.mkdir,
            lambda path: path.symlink_to("x"),
            lambda path: path.hardlink_to(self._path("s0")),
        ]
        kind = self._chance.randrange(len(makes))
        name = self._new_name()
        makes[kind](self._path(name))
        self._there.add(name)
        yield f"make {kind}"
        if self._chance.random() < 0.5:
            new = self._chance.choice(["s1", self._new_name()]) if kind in (0, 2) else self._new_name()
            self._path(name).rename(self._path(new))
            self._there = self._there - {name} | {new}
            name = new
            yield f"rename {kind}"
        if self._chance.random() < 0.1 and kind == 1:
            self._path(name).rmdir()
            self._path(name).mkdir()
            yield "make again"
        if name not in ("s0", "s1"):
            (Path.rmdir if kind == 1 else Path.unlink)(self._path(name))
            self._there.remove(name)
            yield f"remove {kind}"

    def check(self, what: str) -> None:
        """Print what is wrong with a listing that begins now."""
        self.rounds += 1
        found = os.listdir(self._top)
        if len(found) != len(self._there) or set(found) != self._there:
            missing, extra = self._there - set(found), set(found) - self._there
            print(
                f"{self.rounds}, {what}: missing {sorted(missing)[:3]}, wrong {sorted(extra)[:3]}", flush=True
            )


def change(directory: str, rounds: str, seed: str) -> None:
    """Print a line for each time that a listing was wrong."""
    changer = Changer(Path(directory), random.Random(seed))
    while changer.rounds < int(rounds):
        for what in changer.changes():
            changer.check(what)
            if changer.rounds % _SELDOM == 0:
                with contextlib.suppress(PermissionError):
                    _DROP_CACHES.write_text("2")


if __name__ == "__main__":
    parts: dict[str, Callable[..., None]] = {"list": list_always, "change": change}
    parts[sys.argv[1]](*sys.argv[2:])
