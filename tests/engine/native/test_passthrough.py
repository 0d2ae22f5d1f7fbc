"""Backing files: the first open of a file decides for all until the last is closed."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from overlayfs_py.engine.native.passthrough import Backings
from overlayfs_py.union.overlay import Node
from tests.engine.native.bench import Bench

OPEN, CLOSE = 0x4010E501, 0x4004E502
USER, OTHER = 1000, 1001


class Kernel:
    """Stands for /dev/fuse: hands out backing ids and takes them back."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.error = 0
        self._last = 0

    def ioctl(self, fd: int, command: int, data: bytes) -> int:
        if command == OPEN:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            self._last += 1
            self.live.add(self._last)
            return self._last
        assert command == CLOSE
        (backing_id,) = struct.unpack("=I", data)
        self.live.remove(backing_id)
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    return made


@pytest.fixture
def backings(bench: Bench, kernel: Kernel) -> Iterator[Backings]:
    made = Backings(bench.overlay)
    made.enable(99)
    yield made
    assert not made.written


@pytest.fixture
def upper(bench: Bench) -> Node:
    """A file in the upper, which no copy-up will replace."""
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
    return bench.state.node(bench.find(b"new"))


@pytest.fixture
def lower(bench: Bench) -> Node:
    return bench.state.node(bench.find(b"file"))


def test_all_opens_of_a_file_have_one(backings: Backings, kernel: Kernel, upper: Node) -> None:
    """The kernel refuses anything else (EIO); it goes with the last of them."""
    first = backings.acquire(upper, 5, None)
    assert first in kernel.live
    assert backings.acquire(upper, 6, None) == first
    backings.release(upper, None)
    assert kernel.live == {first}
    backings.release(upper, None)
    assert not kernel.live


def test_a_file_that_a_write_would_copy_up_has_none(backings: Backings, kernel: Kernel, lower: Node) -> None:
    """Also not for opens that come while it is open: they see what a writer writes through the page cache."""
    assert backings.acquire(lower, 5, None) == 0
    assert backings.acquire(lower, 5, None) == 0
    backings.release(lower, None)
    backings.release(lower, None)
    assert not kernel.live


def test_writers_are_known_while_they_may_write(backings: Backings, kernel: Kernel, upper: Node) -> None:
    """What a backing file's writer does we do not see; so nobody else may make the file set-id meanwhile."""
    backings.acquire(upper, 5, USER)
    assert backings.foreign_writers(upper, OTHER)
    assert not backings.foreign_writers(upper, USER)
    backings.acquire(upper, 5, USER)
    backings.release(upper, USER)
    assert upper in backings.written
    backings.release(upper, USER)
    assert upper not in backings.written
    assert not backings.foreign_writers(upper, OTHER)


def test_root_is_no_foreign_writer(backings: Backings, kernel: Kernel, upper: Node) -> None:
    """It keeps set-id bits anyhow."""
    backings.acquire(upper, 5, 0)
    assert not backings.foreign_writers(upper, OTHER)
    backings.release(upper, 0)


@pytest.mark.parametrize(
    ("code", "usable"),
    [(errno.EPERM, False), (errno.ELOOP, False), (errno.EMFILE, True), (errno.EBADF, True)],
)
def test_a_refusal_is_for_ever_where_it_is_not_this_files(
    backings: Backings, kernel: Kernel, upper: Node, code: int, usable: bool
) -> None:
    """The privilege, or a layer's file system that cannot: then nothing is tried again, and it says why."""
    said: list[str] = []
    backings.refused = said.append
    kernel.error = code
    assert backings.acquire(upper, 5, USER) == 0
    assert backings.usable == usable
    assert bool(said) != usable
    backings.release(upper, USER)


def test_without_the_kernels_word_there_are_none(bench: Bench, upper: Node) -> None:
    made = Backings(bench.overlay)
    assert not made.usable
    assert made.acquire(upper, 5, USER) == 0
    made.release(upper, USER)
