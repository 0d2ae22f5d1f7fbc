"""What the engine says of itself: the data path in force, and why a better one is not."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import engine, message, wire
from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest
from overlayfs_py.engine.native.engine import NativeEngine
from overlayfs_py.engine.native.loop import Polling
from overlayfs_py.options import ServiceOptions, UnionOptions
from overlayfs_py.union.overlay import Overlay


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    (tmp_path / "file").write_bytes(b"contents")
    made = Overlay.open(UnionOptions(lower=(os.fsencode(tmp_path),)))
    yield made
    made.close()


def test_passthrough_without_the_privilege(
    overlay: Overlay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_cannot_register", lambda: "no privilege")
    found = NativeEngine(overlay, ServiceOptions(data="passthrough")).capabilities
    assert (found.data, found.fallback) == ("cached", "data=passthrough is not available: no privilege")
    assert found.fallback in caplog.text


@pytest.mark.parametrize("data", ["auto", "cached"])
def test_nothing_to_say_of_what_was_not_asked_for(overlay: Overlay, data: str) -> None:
    found = NativeEngine(overlay, ServiceOptions(data=data)).capabilities
    assert (found.data, found.fallback) == ("cached", "")


def test_layer_that_the_kernel_cannot_back(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known at the first open only: opens go through the page cache from then on."""
    made = NativeEngine(overlay, ServiceOptions(data="passthrough"))
    backings = made._state.backings
    backings.enable(0)
    tried = []

    def no_backing(*_: object) -> int:
        tried.append(1)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    monkeypatch.setattr("overlayfs_py.engine.native.passthrough.fcntl.ioctl", no_backing)
    node = overlay.lookup(overlay.root, b"file")
    assert node is not None
    for _ in range(2):
        handle = overlay.open_file(node, os.O_RDONLY)
        assert backings.acquire(node, handle.fd, None) == 0
        backings.release(node, None)
        overlay.release(handle)
    assert len(tried) == 1
    assert os.strerror(errno.ELOOP) in made.capabilities.fallback
    assert not made.capabilities.passthrough


@pytest.mark.parametrize(
    ("poll", "awake", "expected"), [(0, True, 0), (700, True, 700), (None, True, 100), (None, False, 500)]
)
def test_poll_is_how_long_it_looks(
    overlay: Overlay, monkeypatch: pytest.MonkeyPatch, poll: int | None, awake: bool, expected: int
) -> None:
    """Shorter where a client that waits is awake: to wake it takes less than what others lose meanwhile."""
    cpu_latency = CpuLatencyRequest(os.open(os.devnull, os.O_WRONLY) if awake else -1)
    monkeypatch.setattr(CpuLatencyRequest, "from_option", lambda choice: cpu_latency)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    looked: list[float] = []

    class Noted(Polling):
        def __init__(self, seconds: float) -> None:
            looked.append(seconds)
            super().__init__(seconds)

    monkeypatch.setattr(engine, "Polling", Noted)
    monkeypatch.setattr(engine, "raise_readahead", lambda fd: True)
    made = NativeEngine(overlay, ServiceOptions(poll=poll))
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    made.attach(read_fd)
    made.close()
    assert looked == [pytest.approx(expected * 1e-6)]


def test_answer_that_is_not_taken_becomes_eio(overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender must not wait for ever."""
    monkeypatch.setattr(engine, "raise_readahead", lambda fd: True)
    made = NativeEngine(overlay, ServiceOptions())
    read_fd, write_fd = os.pipe()
    made.attach(write_fd)

    def full(*_: object) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "writev", full)
    assert made._send(wire.OUT_HEADER.pack(20, 0, 8), b"body")
    assert os.read(read_fd, 100) == message.refusal(8, errno.EIO)
    made.close()
    os.close(read_fd)
