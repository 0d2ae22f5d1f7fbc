"""Starts and ends: in the background, by signal, by umount, after a crash."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from overlayfs_py.errors import MountError
from overlayfs_py.options import MountOptions
from overlayfs_py.service import mountpoint
from overlayfs_py.syscalls.mount import unmount
from tests import rawcalls
from tests.mounts import COMMAND, Layers
from tests.service.starts import (
    cleared,
    daemon_pid,
    is_mounted,
    one_line,
    options,
    pyctl,
    wait_gone,
)
from tests.service.starts import (
    overlayfs_py as run,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def start(layers: Layers, *words: str) -> int:
    """A background start; the daemon's pid."""
    result = run(*options(layers, *words), layers.merged)
    assert (result.returncode, result.stderr) == (0, "")
    return daemon_pid(layers)


def test_background_start_answers_at_once_and_keeps_nothing(layers: Layers) -> None:
    """The caller's pipes end with the command, its directory is free, its other descriptors are not held."""
    (layers.lowers[0] / "file").write_text("here")
    reading, writing = os.pipe()
    with cleared(layers.merged):
        began = time.monotonic()
        result = run(*options(layers), layers.merged, pass_fds=[writing])
        assert result.returncode == 0
        assert (layers.merged / "file").read_text() == "here"
        os.close(writing)
        assert os.read(reading, 1) == b""  # nobody else holds the other end
        assert time.monotonic() - began < 20
        pid = daemon_pid(layers)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
        assert os.getsid(pid) == pid
        assert pyctl("umount", layers.merged).returncode == 0
    os.close(reading)


def test_the_table_of_descriptors_never_grows_while_it_serves(layers: Layers) -> None:
    """Growing it takes 10 ms with several threads, in the middle of somebody's request."""
    with cleared(layers.merged):
        pid = start(layers)
        status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        limit = int(Path(f"/proc/{pid}/limits").read_text().split("Max open files")[1].split()[0])
        assert int(status["FDSize"]) >= min(limit, 16384)
        assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_unmounts(layers: Layers, number: signal.Signals) -> None:
    with cleared(layers.merged):
        pid = start(layers)
        (layers.merged / "x").write_text("kept")
        os.kill(pid, number)
        wait_gone(pid)
        assert not is_mounted(layers)
        assert (layers.upper / "x").read_text() == "kept"


def test_foreground_ends_with_status_0(layers: Layers) -> None:
    with cleared(layers.merged):
        process = subprocess.Popen([COMMAND, "-f", *options(layers), layers.merged], stderr=subprocess.PIPE)
        _wait_for_mount(layers)
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert b"SIGTERM" in errors
        assert not is_mounted(layers)


def _wait_for_mount(layers: Layers) -> None:
    wait_until(lambda: is_mounted(layers))
    os.stat(layers.merged)


def test_signal_detaches_a_busy_mount(layers: Layers) -> None:
    """Somebody's open file does not keep the daemon: the mount is detached, served a moment, then ended."""
    with cleared(layers.merged):
        pid = start(layers)
        held = (layers.merged / "x").open("w")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_mounted(layers))
        held.write("last words")
        held.flush()
        held.close()
        wait_gone(pid)
        assert (layers.upper / "x").read_text() == "last words"


@pytest.mark.parametrize("command", [["umount"], ["umount", "-l"], ["fusermount3", "-u"]])
def test_unmounted_by_others(layers: Layers, command: list[str]) -> None:
    """Whoever unmounts, the daemon ends by itself and leaves no socket."""
    with cleared(layers.merged):
        pid = start(layers)
        sockets = partial(Path("/run/overlayfs-py").glob, f"*-{pid}.sock")
        assert len(list(sockets())) == 1
        subprocess.run([*command, layers.merged], check=True, timeout=30)
        wait_gone(pid)
        assert list(sockets()) == []
        assert not is_mounted(layers)


def test_dead_mount_is_cleared_at_start(layers: Layers) -> None:
    with cleared(layers.merged):
        pid = start(layers)
        (layers.merged / "x").write_text("kept")
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        with pytest.raises(OSError, match="connect"):
            os.statvfs(layers.merged)
        result = run(*options(layers), layers.merged)
        assert result.returncode == 0
        assert result.stderr == f"overlayfs-py: clearing the dead mount on {layers.merged}\n"
        assert (layers.merged / "x").read_text() == "kept"
        assert pyctl("umount", layers.merged).returncode == 0
        assert not is_mounted(layers)


def test_who_waits_for_a_dead_daemon_gets_an_error(layers: Layers) -> None:
    """Somebody else still has the daemon's /dev/fuse, so that only an abort ends what waits on it."""
    with cleared(layers.merged):
        pid = start(layers)
        fds = Path(f"/proc/{pid}/fd")
        number = next(int(fd.name) for fd in fds.iterdir() if os.readlink(fd) == "/dev/fuse")
        held = rawcalls.steal_fd(pid, number)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
            with subprocess.Popen(["stat", "-f", str(layers.merged)], stderr=subprocess.PIPE) as waiting:
                with pytest.raises(subprocess.TimeoutExpired):
                    waiting.wait(0.5)
                unmount(os.fsencode(layers.merged), lazy=True, abort=True)
                assert waiting.wait(10) == 1
        finally:
            os.close(held)


def test_a_mount_that_does_not_answer_is_refused(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its daemon may be alive: nothing is cleared, and the start does not wait for ever either."""
    monkeypatch.setattr(mountpoint, "_LOOK_SECONDS", 0.5)
    with cleared(layers.merged):
        pid = start(layers)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(MountError, match="does not answer"):
                mountpoint.make_way(MountOptions(mountpoint=os.fsencode(layers.merged)))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (layers.merged / ".").exists()


def test_somebody_elses_dead_mount_is_left_alone(layers: Layers) -> None:
    with cleared(layers.merged):
        pid = start(layers, "subtype=other")
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        one_line(run(*options(layers), layers.merged), str(layers.merged), "dead")
        assert is_mounted(layers)


def test_daemon_killed_while_starting(layers: Layers) -> None:
    """The waiting command says so instead of waiting for ever."""
    script = (
        "import os, signal, sys\n"
        "from overlayfs_py.service import process\n"
        "process.make_way = lambda options: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from overlayfs_py import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", script, *options(layers), str(layers.merged)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    one_line(result, "SIGKILL")


@pytest.mark.parametrize(
    ("engine", "where_it_is"),
    [("pyfuse3", "libfuse.engine import LibfuseEngine"), ("native", "native.engine import NativeEngine")],
)
def test_failure_after_the_mount_leaves_nothing(layers: Layers, engine: str, where_it_is: str) -> None:
    """An engine that cannot take the descriptor: one line, and the mount made for it is gone."""
    script = (
        "import sys\n"
        f"from overlayfs_py.engine.{where_it_is} as Engine\n"
        "def attach(self, fd): raise RuntimeError('no session')\n"
        "Engine.attach = attach\n"
        "from overlayfs_py import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    for foreground in ([], ["-f"]):
        wanted = options(layers, f"engine={engine}")
        words = [sys.executable, "-c", script, *foreground, *wanted, str(layers.merged)]
        result = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        one_line(result, "no session")
        assert not is_mounted(layers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_command_leaves_nothing(layers: Layers, number: int) -> None:
    """Ctrl-C or SIGTERM while waiting for the daemon takes the daemon along."""
    for delay in (0.0, 0.1, 0.15, 0.2, 0.25, 0.3):
        process = subprocess.Popen(
            [COMMAND, *options(layers), layers.merged], stderr=subprocess.PIPE, start_new_session=True
        )
        time.sleep(delay)
        process.send_signal(number)
        process.communicate(timeout=30)
        if process.returncode == 0:  # it was faster
            assert pyctl("umount", layers.merged).returncode == 0
        assert not is_mounted(layers)


def test_systemd_is_told(layers: Layers, where: Path) -> None:
    """READY only when the mount answers, signs of life, STOPPING; and only the foreground speaks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, cleared(layers.merged):
        manager.bind(str(where / "notify"))
        manager.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(where / "notify"), "WATCHDOG_USEC": "400000"}
        process = subprocess.Popen([COMMAND, "-f", *options(layers), layers.merged], env=environment)
        ready = manager.recv(4096).decode().splitlines()
        assert "READY=1" in ready
        assert f"MAINPID={process.pid}" in ready
        assert any(line.startswith("STATUS=serving") for line in ready)
        assert is_mounted(layers)
        assert os.listdir(layers.merged) == []
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.terminate()
        while (message := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert message.startswith(b"STOPPING=1")
        assert process.wait(30) == 0
        manager.settimeout(1)
        result = run(*options(layers), layers.merged, env=environment)
        assert result.returncode == 0
        assert pyctl("umount", layers.merged).returncode == 0
        while True:
            try:
                assert not manager.recv(4096).startswith(b"READY")
            except TimeoutError:
                break


@pytest.mark.parametrize(
    ("engine", "where_it_is", "answers"),
    [
        ("pyfuse3", "libfuse.operations import OverlayOperations", "async def"),
        ("native", "native.names import NameRequests", "def"),
    ],
)
def test_no_watchdog_ping_from_a_stuck_loop(
    layers: Layers, where: Path, engine: str, where_it_is: str, answers: str
) -> None:
    """A loop that serves nothing gives no sign of life, so that systemd ends it."""
    script = (
        "import os, sys, time\n"
        f"from overlayfs_py.engine.{where_it_is} as Operations\n"
        "from overlayfs_py import cli\n"
        f"{answers} lookup(self, *_): os.write(1, b'stuck\\n'); time.sleep(3600)\n"
        "Operations.lookup = lookup\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, cleared(layers.merged):
        manager.bind(str(where / "notify"))
        manager.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(where / "notify"), "WATCHDOG_USEC": "200000"}
        wanted = options(layers, f"engine={engine}")
        words = [sys.executable, "-c", script, "-f", *wanted, str(layers.merged)]
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
        try:
            assert b"READY=1" in manager.recv(4096)
            victim = subprocess.Popen(["stat", layers.merged / "x"], stderr=subprocess.DEVNULL)
            assert process.stdout
            assert process.stdout.readline() == b"stuck\n"
            manager.settimeout(0.05)
            try:
                while True:
                    manager.recv(4096)
            except TimeoutError:
                pass
            manager.settimeout(1)
            with pytest.raises(TimeoutError):
                manager.recv(4096)
        finally:
            process.kill()
            process.communicate()
            victim.wait(10)
