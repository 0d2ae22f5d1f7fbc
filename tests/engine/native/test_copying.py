"""Copy-ups that requests ask for: long ones keep nobody else waiting."""

import errno
import os
import struct
from pathlib import Path

import pytest

from overlayfs_py.engine.native import wire
from tests.engine.native.bench import BIG, Bench


def test_long_copy_lets_others_go_on(bench: Bench) -> None:
    """The first write of a big lower file waits for its copy; a stat and another file's write do not."""
    big, small = bench.find(b"big"), bench.find(b"file")
    first = bench.write(big, b"first")
    second = bench.write(big, b"2nd")
    assert first not in bench.sent
    assert second not in bench.sent
    assert bench.sent[bench.write(small, b"other")] == (0, wire.WRITE_OUT.pack(5, 0))
    bench.ask("GETATTR", bytes(16), big)
    while second not in bench.sent:
        bench.finish()
    assert bench.sent[first][0] == bench.sent[second][0] == 0
    assert bench.read(big, 6) == b"2ndstb"
    assert (bench.top / "upper/big").stat().st_size == BIG


def test_failed_copy_is_told_to_the_writer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **hints: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("overlayfs_py.union.copyup.copy_data", no_space)
    big = bench.find(b"big")
    first, second = bench.write(big, b"first"), bench.write(big, b"second")
    while second not in bench.sent:
        bench.finish()
    assert (bench.sent[first][0], bench.sent[second][0]) == (errno.ENOSPC, errno.ENOSPC)
    assert bench.read(big, 3) == b"bbb"
    assert os.listdir(bench.top / "work/work") == ["incompat"], "nothing but the mark of a volatile mount"


def test_interrupt_ends_the_waiting_not_the_copy(bench: Bench) -> None:
    big = bench.find(b"big")
    first, second = bench.write(big, b"first"), bench.write(big, b"second")
    for unique in (second, first, 12345):
        bench.put("INTERRUPT", struct.pack("=Q", unique))
    assert bench.sent[first] == bench.sent[second] == (errno.EINTR, b"")
    bench.finish()
    assert (bench.top / "upper/big").read_bytes() == b"b" * BIG
    assert not bench.deferrals.busy(bench.state.node(big))


def test_forget_during_a_copy(bench: Bench) -> None:
    """The node stays until its copy is over, even when nobody wants it any more."""
    big = bench.find(b"big")
    unique = bench.write(big, b"first")
    bench.put("INTERRUPT", struct.pack("=Q", unique))
    bench.forget(big)
    bench.finish()
    assert len(bench.state.nodes) == 1
    assert bench.read(bench.find(b"big"), 3) == b"bbb"


def test_copy_of_a_directory_is_told(bench: Bench) -> None:
    """Its attributes changed without any request for it."""
    directory = bench.find(b"directory")
    bench.ask("MKDIR", struct.pack("=II", 0o755, 0) + b"inside\0", directory)
    told = {struct.unpack_from("=Qq", message, 16) for message in bench.notified}
    assert (directory, -1) in told


SLOW = 20e-3


@pytest.mark.parametrize("volatile", [False, True])
def test_slow_small_copies_go_to_threads(tmp_path: Path, volatile: bool) -> None:
    """Others would wait for their sync; a volatile mount has none."""
    bench = Bench(tmp_path, volatile=volatile)
    for _ in range(9):
        bench.state.copying._latency.record(SLOW)
    unique = bench.write(bench.find(b"file"), b"new")
    assert (unique in bench.sent) == volatile
    bench.deferrals.close()
    bench.deferrals.complete()
    assert bench.sent[unique][0] == 0
    assert (bench.top / "upper/file").read_bytes() == b"newer"
    bench.overlay.close()
