"""The control socket and overlayfs-pyctl."""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.errors import MountError
from overlayfs_py.service import client, rundir
from tests.mounts import Layers
from tests.service.starts import (
    cleared,
    daemon_pid,
    is_mounted,
    one_line,
    options,
    overlayfs_py,
    pyctl,
    wait_gone,
)

pytestmark = [pytest.mark.fuse, pytest.mark.root]
RUN_DIR = b"/run/overlayfs-py"


@pytest.fixture
def live(layers: Layers) -> Iterator[Layers]:
    """A mount started in the background."""
    with cleared(layers.merged):
        assert overlayfs_py(*options(layers), layers.merged).returncode == 0
        yield layers
        if is_mounted(layers):
            pyctl("umount", "-l", layers.merged)


def control_socket(layers: Layers) -> bytes:
    (path,) = rundir.sockets(RUN_DIR, os.fsencode(layers.merged))
    return path


def test_socket_is_private(live: Layers) -> None:
    assert stat.S_IMODE(os.stat(control_socket(live)).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(RUN_DIR).st_mode) == 0o700


def test_list_and_status(live: Layers) -> None:
    (found,) = (m for m in json.loads(pyctl("list", "--json").stdout) if m["mountpoint"] == str(live.merged))
    assert found["upper"] == str(live.upper)
    assert found["lower"] == [str(path) for path in live.lowers]
    status = json.loads(pyctl("status", "--json", live.merged).stdout)
    assert status["pid"] == found["pid"] == daemon_pid(live)
    assert status["statistics"]["requests"] > 0
    assert str(live.merged) in pyctl("list").stdout
    assert f"upper: {live.upper}" in pyctl("status", live.merged).stdout


def test_mount_point_as_it_is_typed(live: Layers, where: Path) -> None:
    """Relative and through a link: the same mount."""
    (where / "link").symlink_to(where)
    program = [str(Path(pyctl.__globals__["COMMAND"]).with_name("overlayfs-pyctl")), "status"]
    for typed in ("merged", "merged/", "link/merged", "./merged"):
        subprocess.run([*program, typed], cwd=where, check=True, capture_output=True, timeout=30)


def test_umount_waits_for_the_end(live: Layers) -> None:
    """When the verb returns, the layers are free: the same work directory can be mounted at once."""
    pid = daemon_pid(live)
    assert pyctl("umount", live.merged).returncode == 0
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not is_mounted(live)
    assert overlayfs_py(*options(live), live.merged).returncode == 0


def test_umount_of_a_busy_mount(live: Layers) -> None:
    with (live.merged / "x").open("w"):
        one_line(pyctl("umount", live.merged), str(live.merged), "in use", program="overlayfs-pyctl")
        assert is_mounted(live)
        pid = daemon_pid(live)
        assert pyctl("umount", "-l", live.merged).returncode == 0
        assert not is_mounted(live)
    wait_gone(pid)


@pytest.mark.parametrize("verb", ["status", "umount"])
def test_nothing_mounted(layers: Layers, verb: str) -> None:
    one_line(pyctl(verb, layers.merged), str(layers.merged), program="overlayfs-pyctl")


def test_sockets_of_killed_daemons_are_removed(live: Layers) -> None:
    path = control_socket(live)
    pid = daemon_pid(live)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    assert pyctl("list").returncode == 0
    assert not os.path.exists(path)


def test_a_mount_whose_daemon_does_not_answer(live: Layers, where: Path) -> None:
    """The line says what may be wrong: another run directory, or a dead daemon."""
    elsewhere = pyctl("--run-dir", where, "status", live.merged)
    one_line(elsewhere, f"nobody answers for the overlay on {live.merged}", program="overlayfs-pyctl")
    pid = daemon_pid(live)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    one_line(pyctl("sync", live.merged), "umount it", program="overlayfs-pyctl")


@pytest.mark.parametrize("given", ["x", "0", "-1", "inf", "nan"])
def test_wrong_times(given: str) -> None:
    """A wrong command line: status 2, as with every other."""
    done = pyctl("freeze", f"--timeout={given}", "/mnt")
    assert done.returncode == 2
    assert "expected a number of seconds above 0" in done.stderr


@pytest.mark.parametrize(
    "request_line",
    [b"", b"{}", b"[]", b"nonsense", b'"text"', b'{"verb": "reboot"}', b'{"verb": ["status"]}', b"\xff"],
)
def test_wrong_requests_are_answered(live: Layers, request_line: bytes) -> None:
    """One wrong line neither ends the conversation nor the daemon."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(control_socket(live))
        asking.sendall(request_line + b'\n{"verb": "status"}\n')
        lines = asking.makefile("rb")
        assert json.loads(lines.readline())["ok"] is False
        assert json.loads(lines.readline())["result"]["mountpoint"] == str(live.merged)


def test_endless_request_is_cut_off(live: Layers) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(control_socket(live))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            asking.sendall(b"x" * 6_000_000)
    with client.connect(RUN_DIR, os.fsencode(live.merged)) as daemon:
        assert daemon.ask("status")["mountpoint"] == str(live.merged)


def test_other_verbs_are_named(live: Layers) -> None:
    with (
        client.connect(RUN_DIR, os.fsencode(live.merged)) as daemon,
        pytest.raises(MountError, match="unknown verb reboot; there are status, stats, freeze"),
    ):
        daemon.ask("reboot")


def test_run_dir_of_somebody_else_is_refused(where: Path) -> None:
    (where / "run").mkdir()
    os.chown(where / "run", 1, 1)
    with pytest.raises(PermissionError):
        rundir.make_run_dir(os.fsencode(where / "run"))


def test_run_dir_follows_the_user(where: Path) -> None:
    assert rundir.default_run_dir({"XDG_RUNTIME_DIR": str(where)}, 0) == RUN_DIR
    assert rundir.default_run_dir({"XDG_RUNTIME_DIR": str(where)}, 1000) == os.fsencode(
        where / "overlayfs-py"
    )
    assert rundir.default_run_dir({}, 99999) == b"/tmp/overlayfs-py-99999"
