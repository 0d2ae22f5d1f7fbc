"""When idle processors are kept from halting; the engine works without it where it is not available."""

import logging
import os
from pathlib import Path

import pytest

from overlayfs_py.engine.native import cpu_latency
from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual machine of two processors; its files are in the directory returned."""
    (tmp_path / "driver").write_text("haltpoll\n")
    (tmp_path / "latency").touch()
    monkeypatch.setattr(cpu_latency, "_DRIVER", str(tmp_path / "driver"))
    monkeypatch.setattr(cpu_latency, "_DEVICE", str(tmp_path / "latency"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return tmp_path


def _asks(choice: str, device: Path) -> bool:
    device.write_bytes(b"")
    made = CpuLatencyRequest.from_option(choice)
    made.start()
    made.start()
    made.stop()
    made.stop()
    made.close()
    made.close()
    assert device.stat().st_size in (0, 8), "each is asked once"
    return device.stat().st_size > 0


def test_where_it_pays(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = machine / "latency"
    assert _asks("auto", device)
    assert not _asks("off", device)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert not _asks("auto", device), "it would concern all of them"
    assert _asks("on", device)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (machine / "driver").write_text("intel_idle\n")
    assert not _asks("auto", device)
    (machine / "driver").unlink()
    assert not _asks("auto", device)


@pytest.mark.parametrize(("choice", "level"), [("auto", logging.DEBUG), ("on", logging.WARNING)])
def test_without_the_right_it_is_done_without(
    machine: Path, caplog: pytest.LogCaptureFixture, choice: str, level: int
) -> None:
    (machine / "latency").unlink()
    with caplog.at_level(logging.DEBUG):
        made = CpuLatencyRequest.from_option(choice)
    made.start()
    made.stop()
    assert [record.levelno for record in caplog.records] == [level]


def test_a_refused_wish_is_the_last(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = CpuLatencyRequest(os.open(machine / "latency", os.O_RDONLY))
    made.start()
    made.stop()
    made.start()
    assert len(caplog.records) == 1
