"""Mounting an upper again: an ending daemon is waited for, a living one refused, whoever keeps it named."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from overlayfs_py.errors import InUse, LayerError
from overlayfs_py.service import taking
from overlayfs_py.syscalls import processes
from tests import rawcalls
from tests.mounts import Layers, make_layers
from tests.service.elsewhere import copied_elsewhere, lock_holder
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

# A daemon that takes its time for the last sync.
_SLOW = """
import sys, time
from overlayfs_py.union.overlay import Overlay
sync = Overlay.sync
def slow(self):
    time.sleep(float(sys.argv[1]))
    sync(self)
Overlay.sync = slow
from overlayfs_py import cli
sys.exit(cli.main(sys.argv[2:]))
"""


def start(layers: Layers, *more: str) -> int:
    result = overlayfs_py(*options(layers, *more), layers.merged)
    assert (result.returncode, result.stderr) == (0, "")
    return daemon_pid(layers)


def start_slow(layers: Layers, seconds: float) -> int:
    words = [sys.executable, "-c", _SLOW, str(seconds), *options(layers), str(layers.merged)]
    subprocess.run(words, check=True, timeout=60)
    return daemon_pid(layers)


@pytest.mark.parametrize("data", ["cached", "writeback"])
def test_unmounted_and_mounted_at_once(layers: Layers, data: str) -> None:
    """While the old daemon still writes; nothing of it is lost."""
    content = os.urandom(1 << 20) * 24
    with cleared(layers.merged):
        start(layers, f"data={data}")
        for number in range(3):
            (layers.merged / f"file{number}").write_bytes(content)
            rawcalls.umount(os.fsencode(layers.merged))
            start(layers, f"data={data}")
        assert all((layers.merged / f"file{number}").read_bytes() == content for number in range(3))
        assert pyctl("umount", layers.merged).returncode == 0


def test_a_long_wait_is_told(layers: Layers) -> None:
    """One line on stderr says who is waited for."""
    with cleared(layers.merged):
        pid = start_slow(layers, 2.5)
        (layers.merged / "x").touch()
        rawcalls.umount(os.fsencode(layers.merged))
        result = overlayfs_py(*options(layers), layers.merged)
        assert result.returncode == 0
        assert result.stderr == (
            f"overlayfs-py: workdir {layers.work}: "
            f"waiting until the daemon (pid {pid}) of the last mount has stopped\n"
        )
        assert pyctl("umount", layers.merged).returncode == 0


def test_the_wait_has_an_end(layers: Layers) -> None:
    with cleared(layers.merged):
        pid = start_slow(layers, 4)
        (layers.merged / "x").touch()
        rawcalls.umount(os.fsencode(layers.merged))
        status = os.stat(layers.work)

        def take() -> None:
            raise InUse(f"workdir {layers.work}", (status.st_dev, status.st_ino))

        with pytest.raises(LayerError, match=rf"{layers.merged} \(pid {pid}\) has been stopping for 0.2 s"):
            taking.open_when_free(take, None, seconds=0.2)
        wait_gone(pid)


@pytest.mark.parametrize("same", ["work", "upper"])
def test_a_living_one_is_refused_at_once(layers: Layers, where: Path, same: str) -> None:
    """By its mount point and pid, whichever of the two directories is shared."""
    (where / "second").mkdir()
    second = make_layers(where / "second")
    words = f"lowerdir={layers.lowers[0]},"
    words += f"upperdir={(layers if same == 'upper' else second).upper},"
    words += f"workdir={(layers if same == 'work' else second).work}"
    with cleared(layers.merged, second.merged):
        pid = start(layers)
        began = time.monotonic()
        refused = overlayfs_py("-o", words, second.merged)
        assert time.monotonic() - began < 10
        one_line(
            refused,
            f"{same}dir {getattr(layers, same)}: in use by the overlay on {layers.merged} (pid {pid})",
        )
        assert "unmount it first" in refused.stderr
        assert pyctl("umount", layers.merged).returncode == 0


def test_of_many_who_wait_one_gets_it(layers: Layers, where: Path) -> None:
    """All are there while the old daemon ends; the others are refused then."""
    places = [make_layers(_made(where / f"m{number}")) for number in range(4)]
    with cleared(layers.merged, *(place.merged for place in places)):
        start_slow(layers, 1)
        (layers.merged / "x").touch()
        rawcalls.umount(os.fsencode(layers.merged))
        results: list[subprocess.CompletedProcess[str]] = []
        threads = [
            threading.Thread(
                target=lambda at=place: results.append(overlayfs_py(*options(layers), at.merged))
            )
            for place in places
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(result.returncode for result in results) == [0, 1, 1, 1]
        (mounted,) = (place for place in places if is_mounted(place))
        for result in results:
            if result.returncode:
                assert f"in use by the overlay on {mounted.merged}" in result.stderr
        assert pyctl("umount", mounted.merged).returncode == 0


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_killed_and_mounted_at_once(layers: Layers) -> None:
    with cleared(layers.merged):
        for _ in range(3):
            os.kill(start_over(layers), signal.SIGKILL)
        start_over(layers)
        assert pyctl("umount", layers.merged).returncode == 0


def start_over(layers: Layers) -> int:
    """A start where a dead mount may be."""
    result = overlayfs_py(*options(layers), layers.merged)
    assert result.returncode == 0, result.stderr
    return daemon_pid(layers)


def test_a_program_that_is_no_daemon(layers: Layers) -> None:
    """It is not waited for."""
    with subprocess.Popen(
        ["flock", layers.work, "sh", "-c", "echo; exec sleep 100"], stdout=subprocess.PIPE
    ) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == b"\n"
            one_line(overlayfs_py(*options(layers), layers.merged), "in use by pid", "(flock)")
        finally:
            child = int(Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text())
            os.kill(child, signal.SIGKILL)


def test_a_copy_in_another_mount_namespace_is_named(layers: Layers) -> None:
    """By pid and command, without a wait, and with what helps; when it is gone all is well."""
    with cleared(layers.merged):
        pid = start(layers)
        with copied_elsewhere() as keeper:
            rawcalls.umount(os.fsencode(layers.merged))
            began = time.monotonic()
            refused = overlayfs_py(*options(layers), layers.merged)
            assert time.monotonic() - began < 10
            one_line(
                refused,
                f"in use by the overlay that was on {layers.merged} (pid {pid}), "
                f"kept alive by pid {keeper} (sleep) in another mount namespace: "
                f"end that process, or run overlayfs-pyctl umount -f {layers.merged}",
            )
            not_here = pyctl("umount", layers.merged)
            one_line(not_here, "is not mounted here", f"pid {keeper} (sleep)", program="overlayfs-pyctl")
        start(layers)
        assert pyctl("umount", layers.merged).returncode == 0


def test_umount_tells_who_keeps_it(layers: Layers) -> None:
    """It is unmounted here, which is a success; the daemon goes on, and the line says for whom."""
    with cleared(layers.merged):
        pid = start(layers)
        with copied_elsewhere() as keeper:
            began = time.monotonic()
            done = pyctl("umount", layers.merged)
            assert time.monotonic() - began < 10
            assert done.returncode == 0
            assert done.stderr.count("\n") == 1
            assert f"its daemon (pid {pid}) still serves pid {keeper} (sleep)" in done.stderr
            assert not is_mounted(layers)
            assert processes.state_of(pid)
        wait_gone(pid)


def test_open_files_of_a_detached_mount(layers: Layers) -> None:
    with cleared(layers.merged):
        pid = start(layers)
        with (layers.merged / "x").open("w"):
            assert pyctl("umount", "-l", layers.merged).returncode == 0
            refused = overlayfs_py(*options(layers), layers.merged)
            one_line(refused, f"(pid {pid}), kept alive by pid {os.getpid()} (", "with open files of it")
        wait_gone(pid)


@pytest.mark.engine
def test_forced_umount_ends_a_copy_elsewhere(layers: Layers, engine: str) -> None:
    """What was written is in the upper; the process in the other namespace gets errors and lives on."""
    with cleared(layers.merged):
        pid = start(layers, f"engine={engine}")
        with copied_elsewhere() as keeper:
            (layers.merged / "x").write_text("kept")
            rawcalls.umount(os.fsencode(layers.merged))
            assert pyctl("umount", "-f", layers.merged).returncode == 0
            assert processes.state_of(pid) in ("", "Z")
            look = ["nsenter", "-t", str(keeper), "-m", "stat", "-f", str(layers.merged)]
            seen = subprocess.run(look, capture_output=True, text=True, timeout=30)
            assert "not connected" in seen.stderr
            start(layers, f"engine={engine}")
            assert (layers.merged / "x").read_text() == "kept"
            assert pyctl("umount", layers.merged).returncode == 0


@pytest.mark.engine
def test_forced_umount_of_a_mount_in_use(layers: Layers, engine: str) -> None:
    with cleared(layers.merged):
        pid = start(layers, f"engine={engine}")
        held = (layers.merged / "x").open("w")
        held.write("kept")
        held.flush()
        assert pyctl("umount", "-f", layers.merged).returncode == 0
        assert processes.state_of(pid) in ("", "Z")
        assert not is_mounted(layers)
        assert (layers.upper / "x").read_text() == "kept"
        with suppress(OSError):
            held.close()


def test_forced_umount_of_a_stopped_daemon(layers: Layers) -> None:
    """Its connection is aborted by fusectl, so that nobody waits for it any more; that it is left is said."""
    with cleared(layers.merged):
        pid = start(layers)
        os.kill(pid, signal.SIGSTOP)
        try:
            taking_long = pyctl("umount", "-f", layers.merged)
            assert taking_long.returncode == 1
            assert f"(pid {pid})" in taking_long.stderr
            with pytest.raises(OSError, match="connect"):
                os.statvfs(layers.merged)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_gone(pid)


@pytest.mark.engine
def test_a_signal_ends_a_daemon_that_is_kept(layers: Layers, engine: str) -> None:
    """Whoever stops a service need not kill it."""
    with cleared(layers.merged):
        pid = start(layers, f"engine={engine}")
        with copied_elsewhere():
            (layers.merged / "x").write_text("kept")
            os.kill(pid, signal.SIGTERM)
            wait_gone(pid)
        assert (layers.upper / "x").read_text() == "kept"
        assert lock_holder(layers.work) is None


def test_the_living_one_of_two_is_asked(layers: Layers, where: Path) -> None:
    """A daemon that is kept elsewhere has the same mount point as the one that serves it now."""
    second = make_layers(_made(where / "second"))
    with cleared(layers.merged):
        old = start(layers)
        with copied_elsewhere():
            rawcalls.umount(os.fsencode(layers.merged))
            words = second.options()
            assert overlayfs_py("-o", words, layers.merged).returncode == 0
            for _ in range(2):
                status = pyctl("status", layers.merged)
                assert f"upper: {second.upper}" in status.stdout
            assert overlayfs_py("-o", "remount,ro", layers.merged).returncode == 0
            assert pyctl("umount", layers.merged).returncode == 0
            assert processes.state_of(old)
        wait_gone(old)
