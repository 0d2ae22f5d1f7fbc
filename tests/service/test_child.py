"""`overlayfs_py.mount()`: the Python way to mount."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import overlayfs_py
from overlayfs_py.errors import ConfigError, MountError
from tests.mounts import Layers
from tests.service.starts import cleared, is_mounted, wait_gone

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def test_mounts_and_unmounts(layers: Layers) -> None:
    (layers.lowers[0] / "file").write_text("low")
    with cleared(layers.merged):
        with overlayfs_py.mount(
            lower=layers.lowers, upper=layers.upper, work=layers.work, mountpoint=layers.merged, volatile=True
        ) as mount:
            assert mount.mountpoint == str(layers.merged)
            (layers.merged / "file").write_text("up")
        assert not is_mounted(layers)
    assert (layers.upper / "file").read_text() == "up"


def test_throw_away_upper(layers: Layers, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(where))
    before = set(os.listdir(where))
    with cleared(layers.merged), overlayfs_py.mount(lower=layers.lowers, mountpoint=layers.merged):
        (layers.merged / "x").write_text("gone soon")
    assert list(layers.lowers[0].iterdir()) == []
    assert set(os.listdir(where)) == before


def test_says_nothing_when_all_is_well(layers: Layers, capfd: pytest.CaptureFixture[str]) -> None:
    """The program's own output is not for remarks of a library."""
    with cleared(layers.merged), overlayfs_py.mount(lower=layers.lowers, mountpoint=layers.merged):
        pass
    assert capfd.readouterr() == ("", "")


def test_read_only(layers: Layers) -> None:
    with (
        cleared(layers.merged),
        overlayfs_py.mount(lower=layers.lowers, mountpoint=layers.merged, read_only=True),
        pytest.raises(OSError, match="Read-only"),
    ):
        (layers.merged / "x").touch()


def test_odd_paths(where: Path) -> None:
    """Colons, commas and backslashes need no escapes here."""
    low, merged = where / "a:b,c\\d", where / "m:,\\ n"
    low.mkdir()
    merged.mkdir()
    (low / "file").write_text("x")
    with cleared(merged), overlayfs_py.mount(lower=[low], mountpoint=merged):
        assert (merged / "file").read_text() == "x"


def test_failures_are_exceptions_and_leave_nothing(layers: Layers, where: Path) -> None:
    with pytest.raises(MountError, match="nowhere"):
        overlayfs_py.mount(lower=[where / "nowhere"], mountpoint=layers.merged)
    with pytest.raises(ConfigError, match="unknown option nonsense"):
        overlayfs_py.mount(lower=layers.lowers, mountpoint=layers.merged, nonsense=True)
    with pytest.raises(ConfigError, match="belong together"):
        overlayfs_py.mount(lower=layers.lowers, upper=layers.upper, mountpoint=layers.merged)
    assert not is_mounted(layers)


def test_ends_with_its_parent(layers: Layers) -> None:
    """A program that is killed leaves no mount behind."""
    script = (
        "import os, signal, sys, overlayfs_py\n"
        "mount = overlayfs_py.mount(lower=[sys.argv[1]], mountpoint=sys.argv[2], read_only=True)\n"
        "print(mount.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with cleared(layers.merged):
        result = subprocess.run(
            [sys.executable, "-c", script, layers.lowers[0], layers.merged],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        wait_gone(int(result.stdout))
        assert not is_mounted(layers)


def test_importing_the_package_loads_no_engine() -> None:
    """layerstore imports overlayfs_py for its marks: no trio, no pyfuse3, no service."""
    script = (
        "import overlayfs_py, sys; sys.exit(any(m in sys.modules for m in ('trio', 'pyfuse3', 'subprocess')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0
