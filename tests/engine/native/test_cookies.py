"""What the kernel makes of answers to READDIR: fs/fuse/readdir.c in small; readers and changes at random.

Whoever begins after a change must see it, and the kernel must come to keep listings again.
"""

import errno
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import cookies, wire
from tests.engine.native.bench import READ_WRITE, Bench, opened_bench

Names = frozenset[bytes]
_DOTS = frozenset([b".", b".."])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(tmp_path) as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last number is the time."""
    times = [1000.0]
    monkeypatch.setattr(cookies, "monotonic", lambda: times[-1])
    return times


class KernelDirectory:
    """A directory as the kernel sees it; `version` rises with every change."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.nodeid = bench.find(b"directory")
        self.version = 0
        self.history: list[Names] = [frozenset()]
        self.generation = 0
        self._reset()

    def _reset(self) -> None:
        self.is_cached = False
        self.kept: list[tuple[bytes, int]] = []
        self.end = 0
        self.label = -1
        self.generation += 1

    def begin(self) -> None:
        """A reader at 0: fuse_readdir_cached."""
        if self.is_cached and self.label != self.version:
            self._reset()
        if not self.is_cached and not self.kept:
            self.label = self.version

    def add(self, position: int, name: bytes, cookie: int) -> None:
        """fuse_add_dirent_to_cache"""
        if not self.is_cached and self.end == position:
            self.kept.append((name, cookie))
            self.end = cookie

    def complete(self, position: int) -> None:
        """fuse_readdir_cache_end"""
        self.is_cached = self.is_cached or self.end == position

    def change(self, name: bytes) -> None:
        now = self.history[-1]
        if name in now:
            self.bench.ask("UNLINK", name + b"\0", self.nodeid)
        else:
            mode = struct.pack("=IIII", 0o100644, 0, 0, 0)
            made = self.bench.ask("MKNOD", mode + name + b"\0", self.nodeid)
            self.bench.forget(struct.unpack_from("=Q", made)[0])
        self.history.append(now ^ {name})
        self.version += 1


class Reader:
    """Somebody who has the directory open; `size` is what the kernel asks for, `room` what he takes of it."""

    def __init__(self, directory: KernelDirectory, size: int, room: int) -> None:
        self.directory = directory
        self.size, self.room = size, room
        self.position = 0
        self.since = directory.version
        self.seen: list[bytes] = []
        self.is_done = False
        self._stream = (-1, 0, 0)  # generation, entries passed, their cookie

    def read(self) -> None:
        """One getdents64(2)."""
        if self.position == 0:
            self.directory.begin()
        if not (self.directory.is_cached and self._read_kept()):
            self._ask()

    def _read_kept(self) -> bool:
        """fuse_parse_cache; whether the place was found."""
        generation, passed, cookie = self._stream
        if generation != self.directory.generation or cookie != self.position:
            passed = cookie = 0
        taken = 0
        kept = self.directory.kept
        if passed == len(kept) and passed:
            self.is_done = True
            return True
        while passed < len(kept) and taken < self.room:
            name, following = kept[passed]
            if cookie == self.position:
                self._take(name, following)
                taken += 1
            cookie = following
            passed += 1
        self._stream = (self.directory.generation, passed, cookie)
        return taken > 0

    def _take(self, name: bytes, cookie: int) -> None:
        if name not in _DOTS:
            self.seen.append(name)
        self.position = cookie

    def _ask(self) -> None:
        body = READ_WRITE.pack(0, self.position, self.size, 0, 0, 0)
        raw = self.directory.bench.ask("READDIR", body, self.directory.nodeid)
        if not raw:
            self.directory.complete(self.position)
            self.is_done = True
        at = taken = 0
        while at < len(raw):
            _, cookie, length, _ = wire.DIRENT.unpack_from(raw, at)
            name = raw[at + wire.DIRENT.size : at + wire.DIRENT.size + length]
            self.directory.add(self.position, name, cookie)
            if taken == self.room:
                break
            self._take(name, cookie)
            taken += 1
            at += wire.DIRENT.size + length + 7 & ~7

    def check(self) -> None:
        """What was there all the time was seen once, what never was there was not."""
        meanwhile = self.directory.history[self.since :]
        always, ever = frozenset.intersection(*meanwhile), frozenset.union(*meanwhile)
        assert not [name for name in always if self.seen.count(name) != 1]
        assert not set(self.seen) - ever


def read_all(directory: KernelDirectory, size: int) -> None:
    reader = Reader(directory, size, 1 << 30)
    while not reader.is_done:
        reader.read()
    reader.check()


def chaos(
    directory: KernelDirectory, chance: random.Random, size: int, room: int, clock: list[float]
) -> None:
    """Readers and changes; some readers never come to the end, and after a while do not go on."""
    readers: list[Reader] = []
    for _ in range(2500):
        what = chance.random()
        if what < 0.1:
            directory.change(b"n%d" % chance.randrange(200))
        elif what < 0.2:
            readers.append(Reader(directory, size, room))
        elif what < 0.21:
            clock.append(clock[-1] + chance.choice([0.1, 2]))
            readers.clear()
        elif readers:
            reader = chance.choice(readers)
            reader.read()
            if reader.is_done:
                reader.check()
                readers.remove(reader)


@pytest.mark.parametrize("size", [256, 4096, 8192])
@pytest.mark.parametrize("seed", range(6))
def test_readers_and_changes(bench: Bench, clock: list[float], size: int, seed: int) -> None:
    """The kernel keeps a right listing afterwards."""
    directory = KernelDirectory(bench)
    for n in range(150):
        directory.change(b"n%d" % n)
    chaos(directory, random.Random(seed), size, 1 << 30, clock)
    clock.append(clock[-1] + 2)
    directory.change(b"last")
    for _ in range(3):
        read_all(directory, size)
    assert directory.is_cached
    assert directory.label == directory.version


@pytest.mark.parametrize("seed", range(6))
def test_who_takes_less_than_he_is_given(bench: Bench, clock: list[float], seed: int) -> None:
    """Of a page, which the kernel asks for whatever its caller has room for. All see what is right."""
    directory = KernelDirectory(bench)
    for n in range(150):
        directory.change(b"n%d" % n)
    chaos(directory, random.Random(seed), 4096, 7, clock)


def test_an_abandoned_listing_is_completed(bench: Bench, clock: list[float]) -> None:
    """Also when the name where it ends is gone, at the end of the directory too."""
    directory = KernelDirectory(bench)
    for n in range(300):
        directory.change(b"n%d" % n)
    for steps in range(1, 5):
        reader = Reader(directory, 4200, 1 << 30)
        for _ in range(steps):
            reader.read()
        for name in reader.seen[-3:]:
            directory.change(name)
        clock.append(clock[-1] + 2)
        read_all(directory, 4200)
        read_all(directory, 4200)
        assert directory.is_cached, f"after {steps} reads"
        assert directory.label == directory.version


def test_an_abandoned_listing_of_a_costly_directory(bench: Bench, clock: list[float]) -> None:
    """Of which answers hold fewer names than there is room for."""
    directory = KernelDirectory(bench)
    bench.state.node(directory.nodeid).impure = True
    for n in range(700):
        directory.change(b"n%d" % n)
    for steps in (1, 2, 3):
        reader = Reader(directory, 1 << 15, 1 << 30)
        for _ in range(steps):
            reader.read()
        directory.change(reader.seen[-1])
        clock.append(clock[-1] + 2)
        read_all(directory, 1 << 15)
        read_all(directory, 1 << 15)
        assert directory.is_cached, f"after {steps} reads"


def test_removed_while_listed(bench: Bench) -> None:
    directory = KernelDirectory(bench)
    for n in range(50):
        directory.change(b"n%d" % n)
    reader = Reader(directory, 256, 1 << 30)
    reader.read()
    for n in range(50):
        directory.change(b"n%d" % n)
    bench.ask("RMDIR", b"directory\0")
    reader.read()
    assert reader.is_done
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOENT):
        bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0", directory.nodeid)
