"""What waits for the disk is answered by workers: others are answered meanwhile."""

import errno
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import durability, wire
from tests.engine.native.bench import Bench, fails, opened_bench

FSYNC = struct.Struct("=QI4x")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(tmp_path, volatile=False) as made:
        made.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
        yield made


class Disk:
    """A sync that takes until `done`; `synced` holds the inode numbers it was asked for."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self.done = threading.Event()
        self.error: OSError | None = None

    def sync(self, fd: int) -> None:
        self.synced.append(os.fstat(fd).st_ino)
        assert self.done.wait(10)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "fsync", made.sync)
    monkeypatch.setattr(os, "fdatasync", made.sync)
    monkeypatch.setattr(durability, "syncfs", made.sync)
    return made


ASKED = [("FSYNC", 0), ("FSYNC", wire.FSYNC_DATA_ONLY), ("FSYNCDIR", 0), ("SYNCFS", 0)]


def put(bench: Bench, name: str, flags: int) -> tuple[int, int]:
    """The request's unique, and the real inode it concerns."""
    nodeid, real = (bench.find(b"new"), "upper/new") if name == "FSYNC" else (1, "upper")
    body = bytes(8) if name == "SYNCFS" else FSYNC.pack(0, flags)
    return bench.put(name, body, nodeid), (bench.top / real).stat().st_ino


@pytest.mark.parametrize(("name", "flags"), ASKED)
def test_others_go_on_meanwhile(bench: Bench, disk: Disk, name: str, flags: int) -> None:
    unique, ino = put(bench, name, flags)
    bench.ask("GETATTR", bytes(16))
    bench.ask("MKDIR", struct.pack("=II", 0o755, 0) + b"meanwhile\0")
    assert unique not in bench.sent
    before = set(os.listdir("/proc/self/fd"))
    disk.done.set()
    bench.finish()
    assert bench.sent[unique] == (0, b"")
    assert disk.synced == [ino]
    assert len(os.listdir("/proc/self/fd")) < len(before), "the worker's descriptor is closed"


@pytest.mark.parametrize(("name", "flags"), ASKED)
def test_failure_reaches_who_asked(bench: Bench, disk: Disk, name: str, flags: int) -> None:
    disk.error = OSError(errno.EIO, "gone")
    disk.done.set()
    unique, _ = put(bench, name, flags)
    bench.finish()
    assert bench.sent[unique] == (errno.EIO, b"")


def test_nothing_to_sync_below_a_lower(bench: Bench, disk: Disk) -> None:
    for name, target in (("FSYNC", b"file"), ("FSYNCDIR", b"directory")):
        assert bench.ask(name, FSYNC.pack(0, 0), bench.find(target)) == b""
    assert disk.synced == []


def test_interrupted_sync_is_answered_at_once(bench: Bench, disk: Disk) -> None:
    unique, _ = put(bench, "SYNCFS", 0)
    bench.put("INTERRUPT", struct.pack("=Q", unique))
    assert bench.sent[unique] == (errno.EINTR, b"")
    disk.done.set()
    bench.finish()
    with fails(errno.ENOENT):
        bench.ask("RMDIR", b"missing\0")
