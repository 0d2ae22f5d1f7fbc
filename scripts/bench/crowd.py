"""Steps with very many files, and the checks afterwards: each step counts its failures.

Contents tell a file's own name, so that a descriptor that was closed and taken for another shows.
"""

import errno
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORIES = 300
SAMPLE = 20  # one file in so many is read back, of those that were not all read anyway
ENOUGH = 200  # failures after which a step gives up
TAIL, PATCH, PATCH_AT = b"appended\n", b"PATCHED!", 16
MODE = 0o640


def content(name: str) -> bytes:
    """What the file `name` holds at first."""
    return f"{name}\n".encode() * 8


def patched(name: str) -> bytes:
    """The same with `PATCH` in its middle."""
    old = content(name)
    return old[:PATCH_AT] + PATCH + old[PATCH_AT + len(PATCH) :]


def appended(name: str) -> bytes:
    """What `append` leaves in `name`."""
    return content(name) + TAIL


def half_and_half(name: str) -> bytes:
    """What `change` leaves in `name`."""
    return patched(name) if _odd(name) else appended(name)


def _odd(name: str) -> bool:
    return int(name[-1]) % 2 == 1


def paths(count: int, top: str = "") -> Iterator[tuple[str, str]]:
    """(path, name) of `count` files below `top`, spread over the directories."""
    for number in range(count):
        name = f"file-{number:06d}"
        yield f"{top}/{number % DIRECTORIES:03d}/{name}", name


def make_directories(top: str, count: int) -> None:
    for number in range(min(count, DIRECTORIES)):
        os.makedirs(f"{top}/{number:03d}")


@dataclass
class Step:
    """One kind of work: how long it took, what failed, and how much slower its end was than its beginning."""

    name: str
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    growth: float = 1.0


def run(name: str, work: Callable[[str, str], None], items: Iterable[tuple[str, str]]) -> Step:
    """`work` on each (path, name); OSError and ValueError are failures and do not end it at once."""
    step, taken, begin = Step(name), [0.0], time.perf_counter()
    parts = list(items)
    piece = max(1, len(parts) // 10)
    for number, (path, own) in enumerate(parts, 1):
        try:
            work(path, own)
        except OSError as error:
            step.failures[errno.errorcode.get(error.errno or 0, str(error))] += 1
        except ValueError as error:
            step.failures[str(error)] += 1
        if step.failures.total() >= ENOUGH:
            step.failures["gave up"] += 1
            break
        if number % piece == 0:
            taken.append(time.perf_counter() - begin)
    step.seconds = time.perf_counter() - begin
    if len(taken) > 10 and taken[1]:
        step.growth = (taken[10] - taken[9]) / taken[1]
    return step


def create(path: str, name: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(fd, content(name))
    finally:
        os.close(fd)


def append(path: str, name: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, TAIL)
    finally:
        os.close(fd)


def change(path: str, name: str) -> None:
    """Append to one half of the files, overwrite the middle of the others."""
    if not _odd(name):
        append(path, name)
        return
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, PATCH, PATCH_AT)
    finally:
        os.close(fd)


def chmod(path: str, name: str) -> None:
    os.chmod(path, MODE)


def rename(path: str, name: str) -> None:
    os.rename(path, path + ".new")


def reading(wanted: Callable[[str], bytes], mode: int | None = None) -> Callable[[str, str], None]:
    """A step that reads a file and compares; ValueError where it is wrong."""

    def read(path: str, name: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            found = os.read(fd, 65536)
            if mode is not None and os.fstat(fd).st_mode & 0o7777 != mode:
                raise ValueError("wrong mode")
        finally:
            os.close(fd)
        if found != wanted(name):
            raise ValueError("wrong content")

    return read


def listing(path: str, name: str) -> None:
    if os.listdir(path) != ["own"]:
        raise ValueError("wrong list")


class Unlinker:
    """Unlinks files while they are open, `held` of them at a time; each is written to and read afterwards."""

    def __init__(self, held: int, wanted: Callable[[str], bytes]) -> None:
        self._held = held
        self._wanted = wanted
        self._open: list[tuple[int, str]] = []

    def __call__(self, path: str, name: str) -> None:
        self._open.append((os.open(path, os.O_RDWR), name))
        os.unlink(path)
        if len(self._open) >= self._held:
            self.finish()

    def finish(self) -> None:
        """Write to, read and close those that are open."""
        opened, self._open = self._open, []
        wrong: Exception | None = None
        for fd, name in opened:
            try:
                os.pwrite(fd, PATCH, PATCH_AT)
                old = self._wanted(name)
                if os.pread(fd, 65536, 0) != old[:PATCH_AT] + PATCH + old[PATCH_AT + len(PATCH) :]:
                    raise ValueError("wrong content of an unlinked file")
            except (OSError, ValueError) as error:
                wrong = error
            finally:
                os.close(fd)
        if wrong is not None:
            raise wrong


def copy_tree(source: str, target: str) -> Step:
    """`cp -a`, timed; each line that it prints counts as a failure."""
    step, begin = Step("cp -a of a lower tree"), time.perf_counter()
    done = subprocess.run(["cp", "-a", source, target], stderr=subprocess.PIPE, text=True, errors="replace")
    step.seconds = time.perf_counter() - begin
    for line in done.stderr.splitlines()[:ENOUGH]:
        step.failures[line.rpartition(": ")[2]] += 1
    return step


def strays(work: Path) -> int:
    """How many temporary files an ended mount has left in its work directory."""
    return sum(len(names) for place, _, names in os.walk(work / "work") if "incompat" not in place)
