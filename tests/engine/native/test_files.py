"""Requests about contents: a thread serves them when the disk is slow, and nobody else waits."""

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.latency import LatencyAverage
from overlayfs_py.engine.native.pipes import AnswerPipe
from tests.engine.native.bench import BIG, READ_WRITE, Bench

SLOW = 20e-3


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A slow disk: nothing is in memory, and threads get something from it once this is set."""
    turning = threading.Event()
    monkeypatch.setattr(LatencyAverage, "is_slow", property(lambda _: True))

    def nothing_cached(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "not in memory")

    def read(fd: int, size: int, offset: int, real: Callable[[int, int, int], bytes] = os.pread) -> bytes:
        assert turning.wait(10)
        return real(fd, size, offset)

    def write(fd: int, data: bytes, offset: int, real: Callable[[int, bytes, int], int] = os.pwrite) -> int:
        assert turning.wait(10)
        return real(fd, data[:3], offset)

    monkeypatch.setattr(os, "preadv", nothing_cached)
    monkeypatch.setattr(os, "pread", read)
    monkeypatch.setattr(os, "pwrite", write)
    return turning


def test_others_go_on_while_the_disk_is_read(bench: Bench, slow: threading.Event) -> None:
    nodeid = bench.find(b"file")
    unique = bench.put("READ", READ_WRITE.pack(0, 1, 100, 0, 0, 0), nodeid)
    bench.ask("GETATTR", bytes(16), nodeid)
    assert unique not in bench.sent
    bench.forget(nodeid)  # its descriptor goes, the thread's stays
    slow.set()
    bench.finish()
    assert bench.sent[unique] == (0, b"ower")


def test_others_go_on_while_the_disk_is_written(bench: Bench, slow: threading.Event) -> None:
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
    nodeid = bench.find(b"new")
    unique = bench.write(nodeid, b"contents")
    bench.ask("GETATTR", bytes(16), nodeid)
    assert unique not in bench.sent
    slow.set()
    bench.finish()
    assert bench.sent[unique] == (0, wire.WRITE_OUT.pack(8, 0)), "all of it, whatever one pwrite takes"
    assert (bench.top / "upper/new").read_bytes() == b"contents"


def test_failed_write_reaches_the_writer(
    bench: Bench, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_space)
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
    unique = bench.write(bench.find(b"new"), b"contents")
    bench.finish()
    assert bench.sent[unique] == (errno.ENOSPC, b"")


def test_what_is_cached_needs_no_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyAverage, "is_slow", property(lambda _: True))
    big = bench.find(b"big")
    for offset, size in ((0, 4096), (0, 1 << 20), (BIG - 10, 4096), (BIG, 4096)):
        unique = bench.put("READ", READ_WRITE.pack(0, offset, size, 0, 0, 0), big)
        assert bench.sent[unique] == (0, b"b" * min(size, BIG - offset))


def test_end_while_the_disk_is_slow(bench: Bench, slow: threading.Event) -> None:
    """A write that waited for the last copy wants a thread when there are none any more."""
    slow.set()
    big = bench.find(b"big")
    first, second = bench.write(big, b"1st"), bench.write(big, b"second")
    bench.deferrals.close()
    bench.deferrals.complete()
    assert bench.sent[first][0] == bench.sent[second][0] == 0
    assert (bench.top / "upper/big").read_bytes()[:7] == b"secondb"


# -- the pipe ------------------------------------------------------------------------------------------


def test_without_a_pipe_the_buffer_serves(bench: Bench, tmp_path: Path) -> None:
    """So it is where the layer's file system cannot splice."""

    class Broken(AnswerPipe):
        def fill(self, *_: object) -> bytes:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    bench.state.pipe = Broken()
    big = bench.find(b"big")
    assert bench.read(big, 1 << 17) == b"b" * (1 << 17)


@pytest.mark.parametrize("piped", [True, False])
def test_answer_that_has_to_wait_keeps_its_contents(bench: Bench, piped: bool) -> None:
    """Pipe and buffer serve others while a worker makes the kernel drop a listing; nothing interrupts it."""
    bench.state.pipe = AnswerPipe() if piped else None
    big = bench.find(b"big")
    bench.state.listings.stale = [bench.overlay.root]
    first = bench.put("READ", READ_WRITE.pack(0, 0, 1 << 17, 0, 0, 0), big)
    assert first not in bench.sent
    bench.put("INTERRUPT", struct.pack("=Q", first))
    second = bench.put("READ", READ_WRITE.pack(0, 0, 1 << 16, 0, 0, 0), big)
    assert len(bench.sent[second][1]) == 1 << 16
    bench.finish()
    assert bench.sent[first] == (0, b"b" * (1 << 17))
    assert isinstance(bench.sent[first][1], bytes)


def test_failure_waits_for_listings_too(bench: Bench) -> None:
    bench.state.listings.stale = [bench.overlay.root]
    unique = bench.put("RMDIR", b"file\0")
    assert unique not in bench.sent
    bench.finish()
    assert bench.sent[unique][0] == errno.ENOTDIR


def test_long_copy_range_in_a_thread(bench: Bench) -> None:
    big = bench.find(b"big")
    entry = bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"copy\0")
    copy = struct.unpack_from("=Q", entry)[0]
    unique = bench.put("COPY_FILE_RANGE_64", struct.pack("=QQQQQQQ", 0, 1, copy, 0, 0, BIG, 0), big)
    assert unique not in bench.sent
    bench.finish()
    assert bench.sent[unique] == (0, struct.pack("=Q", BIG - 1))
    assert (bench.top / "upper/copy").stat().st_size == BIG - 1
