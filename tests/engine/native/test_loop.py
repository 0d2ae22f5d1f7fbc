"""The loop on a socket pair: messages, waking, stopping, and how long it looks before it sleeps."""

import itertools
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest
from overlayfs_py.engine.native.loop import Loop, Polling
from tests.waiting import wait_until


class Served:
    """A loop in a thread; `said` holds what it was told, `completed` how often it was asked to complete."""

    def __init__(self, polling: Polling, cpu_latency: CpuLatencyRequest | None = None) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.said: list[bytes] = []
        self.event = threading.Semaphore(0)
        self.completed = threading.Semaphore(0)
        self.rested = threading.Semaphore(0)
        self.untidy = 0
        self.chores = Chores()
        self.loop = Loop(
            self._ours.fileno(),
            100,
            self._serve,
            self.completed.release,
            lambda: 0,
            self._tidy,
            self.rested.release,
            polling,
            cpu_latency or CpuLatencyRequest(),
            self.chores,
        )
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def _serve(self, buffer: bytearray, length: int) -> None:
        self.said.append(bytes(buffer[:length]))
        self.event.release()

    def _tidy(self) -> bool:
        self.untidy = max(0, self.untidy - 1)
        return self.untidy > 0

    def close(self) -> None:
        self.loop.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.loop.close()
        self.loop.close()
        self.kernel.close()
        self._ours.close()


@pytest.fixture(params=[0.0, 1e-3])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(Polling(request.param))
    yield made
    made.close()


def test_messages_in_their_order(served: Served) -> None:
    for number in range(100):
        served.kernel.send(b"%d" % number)
    for _ in range(100):
        assert served.event.acquire(timeout=10)
    assert served.said == [b"%d" % number for number in range(100)]


def test_wake_completes_without_a_message(served: Served) -> None:
    for _ in range(20):
        served.loop.wake()
        assert served.completed.acquire(timeout=10)
    assert served.said == []


def test_idle_costs_nothing(served: Served) -> None:
    """It sleeps in poll: no processor time goes by while nothing happens."""
    served.kernel.send(b"warm")
    assert served.event.acquire(timeout=10)
    before = os.times()
    served.thread.join(0.3)
    after = os.times()
    assert after.user + after.system - before.user - before.system <= 0.05


def test_window_follows_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    polling = Polling(64e-6)
    assert polling.window == 64e-6
    windows = []
    while polling.window:
        polling.wasted(polling.window)
        windows.append(polling.window)
    assert windows == sorted(windows, reverse=True)
    for _ in range(1000):
        if polling.window:
            break
        polling.slept()
    assert polling.window == 64e-6, "worth another try after a while"
    polling.wasted(polling.window)
    polling.paid(0.0)
    assert polling.window == 64e-6


@pytest.mark.parametrize("outcome", [Polling.paid, Polling.wasted])
def test_yields_to_others(monkeypatch: pytest.MonkeyPatch, outcome: Callable[[Polling, float], None]) -> None:
    """Looking that takes a time slice means that somebody else had the processor."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    polling = Polling(64e-6)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_nivcsw=1))
    outcome(polling, 3e-3)
    for _ in range(1000):
        polling.slept()
        assert polling.window == 0
    for _ in range(1000):
        polling.slept()
    assert polling.window == 64e-6, "worth another try much later"


def test_goes_on_when_nobody_else_had_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine that stood still is no client that wants the processor."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_nivcsw=0))
    polling = Polling(64e-6)
    polling.paid(3e-3)
    assert polling.window == 64e-6


def test_one_processor_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    polling = Polling(64e-6)
    for _ in range(1000):
        polling.slept()
        assert polling.window == 0
    polling.paid(0.0)
    assert polling.window == 0


def test_processors_are_awake_between_messages_and_not_afterwards(tmp_path: Path) -> None:
    """The wish is held from the second message of a row on, withdrawn before it sleeps, gone with it."""
    device = tmp_path / "latency"
    fd = os.open(device, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    served = Served(Polling(0.2), CpuLatencyRequest(fd))
    for _ in range(3):
        served.kernel.send(b"asked")
        assert served.event.acquire(timeout=10)
    assert device.read_bytes() == struct.pack("=i", 0)
    served.thread.join(1)
    assert device.read_bytes() == struct.pack("=ii", 0, 2_000_000_000)
    served.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_processors_are_awake_while_messages_come_often(tmp_path: Path) -> None:
    """Also where it sleeps between them."""
    device = tmp_path / "latency"
    served = Served(Polling(0.0), CpuLatencyRequest(os.open(device, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
    deadline = time.monotonic() + 30
    while not device.stat().st_size and time.monotonic() < deadline:  # until two come within 2 ms
        served.kernel.send(b"asked")
        assert served.event.acquire(timeout=10)
    served.thread.join(0.5)
    requested = struct.iter_unpack("=i", device.read_bytes())
    assert list(itertools.chain(*requested))[-2:] == [0, 2_000_000_000]
    served.kernel.send(b"seldom")
    assert served.event.acquire(timeout=10)
    served.thread.join(0.1)
    before = device.stat().st_size
    served.kernel.send(b"seldom")
    assert served.event.acquire(timeout=10)
    served.thread.join(0.1)
    assert device.stat().st_size == before
    served.close()


def test_tidies_before_it_sleeps(served: Served) -> None:
    """To the end, though messages come meanwhile."""
    served.untidy = 1000
    for number in range(5):
        served.kernel.send(b"%d" % number)
        assert served.event.acquire(timeout=10)
    wait_until(lambda: served.untidy == 0)
    assert len(served.said) == 5
