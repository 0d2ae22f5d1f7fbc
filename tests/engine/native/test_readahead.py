"""Reading ahead in large requests, where sysfs lets us say so."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from overlayfs_py.engine.native.readahead import READAHEAD, raise_readahead


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc and /sys are below here."""
    (tmp_path / "proc/self/fdinfo").mkdir(parents=True)
    (tmp_path / "sys/class/bdi/0:47").mkdir(parents=True)
    (tmp_path / "sys/class/bdi/0:47/read_ahead_kb").write_text("128")
    real = builtins.open

    def instead(path: Any, *args: Any, **more: Any) -> Any:
        place = str(path)
        return real(tmp_path / place[1:] if place.startswith(("/proc", "/sys")) else path, *args, **more)

    monkeypatch.setattr(builtins, "open", instead)
    return tmp_path


def test_the_connections_limit_is_raised(machine: Path) -> None:
    """The descriptor's fdinfo says which connection it is (Linux 6.18); its device is 0:N."""
    (machine / "proc/self/fdinfo/9").write_text("pos:\t0\nfuse_connection:\t47\n")
    assert raise_readahead(9)
    assert (machine / "sys/class/bdi/0:47/read_ahead_kb").read_text() == str(READAHEAD >> 10)


@pytest.mark.parametrize("fdinfo", ["pos:\t0\n", "fuse_connection:\t48\n", None])
def test_without_it_the_limit_stays(machine: Path, fdinfo: str | None) -> None:
    """An older kernel, a device that is not there, no /proc: False, and nothing else happens."""
    if fdinfo is not None:
        (machine / "proc/self/fdinfo/9").write_text(fdinfo)
    assert not raise_readahead(9)
    assert (machine / "sys/class/bdi/0:47/read_ahead_kb").read_text() == "128"
