"""Forgetting can wait until nobody else does, but not for ever, and not when its room is wanted."""

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from overlayfs_py.engine.native import forgetting
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.forgetting import Backlog, MemoryTrim
from tests.engine.native.bench import Bench


def test_one_after_the_other() -> None:
    taken: list[tuple[int, int]] = []
    backlog = Backlog(lambda *given: taken.append(given), lambda work: None)
    assert not backlog.shorten()
    backlog.add(5, 1)
    backlog.add(6, 2)
    assert taken == []
    assert backlog.shorten()
    assert taken == [(5, 1)]
    assert backlog.clear()
    assert taken == [(5, 1), (6, 2)]
    assert not backlog.clear()


def test_the_oldest_cannot_wait_when_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forgotten between requests, not all at once."""
    monkeypatch.setattr(forgetting, "_MOST", 30)
    taken: list[int] = []
    begun: list[Iterator[None]] = []
    backlog = Backlog(lambda nodeid, _: taken.append(nodeid), begun.append)
    for nodeid in range(100):
        backlog.add(nodeid, 1)
    assert taken == []
    (work,) = begun
    next(work)
    assert 0 < len(taken) < 70
    for _ in work:
        pass
    assert taken == list(range(70))
    backlog.add(100, 1)
    assert len(begun) == 2


def test_found_again_before_it_is_forgotten(bench: Bench) -> None:
    """Its number stays its own."""
    nodeid = bench.find(b"file")
    bench.put("FORGET", struct.pack("=Q", 1), nodeid)
    assert bench.find(b"file") == nodeid
    bench.state.forgotten.clear()
    assert bench.read(nodeid) == b"lower"
    bench.forget(nodeid)
    assert len(bench.state.nodes) == 1


def _removed(bench: Bench) -> int:
    """A file that was written, removed and forgotten by the kernel; its descriptor in the upper."""
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0o22, 0) + b"gone\0")
    nodeid = bench.find(b"gone")
    bench.write(nodeid, b"blocks")
    fd = bench.state.node(nodeid).fd
    bench.ask("UNLINK", b"gone\0")
    bench.put("FORGET", struct.pack("=Q", 2), nodeid)
    assert os.fstat(fd).st_nlink == 0
    return fd


def test_a_full_disk_is_tried_again_without_what_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = _removed(bench)
    tries = 0
    real = bench.overlay.mkdir

    def mkdir(*arguments: object) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.overlay, "mkdir", mkdir)
    bench.ask("MKDIR", struct.pack("=II", 0o755, 0o22) + b"made\0")
    assert (bench.top / "upper/made").is_dir()
    assert tries == 2
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    tries = 0
    with pytest.raises(OSError, match="No space"):
        bench.ask("MKDIR", struct.pack("=II", 0o755, 0o22) + b"other\0")
    assert tries == 1, "there was nothing more to give"


def test_free_space_counts_what_is_forgotten(bench: Bench) -> None:
    fd = _removed(bench)
    bench.ask("STATFS")
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_memory_is_given_back_once_for_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loop's thread."""
    handed_over: list[Callable[[], None]] = []
    given = []
    came = threading.Event()

    def wake() -> None:
        handed_over.append(lambda: deferrals.complete())
        came.set()

    deferrals = Deferrals(1, wake)
    monkeypatch.setattr(forgetting, "_TRIM_AFTER", 0.05)
    monkeypatch.setattr(forgetting, "give_back", lambda: given.append(threading.current_thread()))
    trim = MemoryTrim(deferrals.later)
    for _ in range(3):
        trim.schedule()
    assert came.wait(10)
    assert not given  # only the loop's thread may, which is this one here
    for then in handed_over:
        then()
    assert given == [threading.current_thread()]
    came.clear()
    trim.schedule()
    assert came.wait(10)
    deferrals.close()
