"""A daemon ends with its mount namespace, and with nothing less."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.syscalls import namespaces, processes
from tests.mounts import COMMAND, Layers, make_layers
from tests.service.elsewhere import lock_holder
from tests.service.starts import options, overlayfs_py, pyctl, wait_gone

pytestmark = [pytest.mark.fuse, pytest.mark.root]

# Mounts in the namespace it is in, says so, and stays until its input ends.
_MOUNT_AND_STAY = 'umask 0; "$@" >/dev/null && echo mounted && cat >/dev/null'


@contextlib.contextmanager
def mounted_elsewhere(
    layers: Layers, *unshare: str, more: tuple[str, ...] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A shell in another mount namespace that has mounted `layers` there; closing its input ends it."""
    words = ["unshare", *(unshare or ("-m", "--propagation", "private"))]
    words += ["sh", "-c", _MOUNT_AND_STAY, "sh", str(COMMAND), *options(layers, *more), str(layers.merged)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == b"mounted\n"
            yield shell
        finally:
            shell.kill()


def daemon_of(layers: Layers) -> int:
    pid = lock_holder(layers.work)
    assert pid is not None
    return pid


def leave(shell: "subprocess.Popen[bytes]") -> None:
    assert shell.stdin is not None
    shell.stdin.close()
    shell.wait(30)


@pytest.mark.engine
def test_it_ends_with_the_namespace(layers: Layers, engine: str) -> None:
    """What was written is in the upper, and the layers can be mounted at once."""
    with mounted_elsewhere(layers, more=(f"engine={engine}",)) as shell:
        pid = daemon_of(layers)
        inside = ["nsenter", "-t", str(shell.pid), "-m", "sh", "-c", f"echo kept >{layers.merged}/x"]
        subprocess.run(inside, check=True, timeout=30)
        leave(shell)
        wait_gone(pid)
    assert (layers.upper / "x").read_text() == "kept\n"
    assert lock_holder(layers.work) is None


def test_the_last_one_counts_whoever_it_is(layers: Layers) -> None:
    """Not the process that mounted: one that came later and stays longer."""
    with mounted_elsewhere(layers) as shell:
        pid = daemon_of(layers)
        inside = ["nsenter", "-t", str(shell.pid), "-m", "sh", "-c", "echo; exec cat"]
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as later:
            assert later.stdout is not None
            assert later.stdout.readline() == b"\n"
            leave(shell)
            look = ["nsenter", "-t", str(later.pid), "-m", "stat", "-f", str(layers.merged)]
            assert subprocess.run(look, capture_output=True, timeout=30).returncode == 0
            leave(later)
        wait_gone(pid)


def test_two_daemons_do_not_wait_for_each_other(layers: Layers, where: Path) -> None:
    (where / "second").mkdir()
    second = make_layers(where / "second")
    with mounted_elsewhere(layers) as shell:
        again = ["nsenter", "-t", str(shell.pid), "-m", str(COMMAND), *options(second), str(second.merged)]
        subprocess.run(again, check=True, timeout=60)
        pids = [daemon_of(layers), daemon_of(second)]
        leave(shell)
        for pid in pids:
            wait_gone(pid)


def test_a_user_namespace_as_podman_has_it(layers: Layers) -> None:
    """The daemon is root there alone."""
    with mounted_elsewhere(layers, "-Um", "--map-root-user", "--propagation", "private") as shell:
        pid = daemon_of(layers)
        leave(shell)
        wait_gone(pid)
    assert lock_holder(layers.work) is None


def test_a_mount_that_others_see_stays(layers: Layers, where: Path) -> None:
    """It has spread to another namespace before its own one ended."""
    with mounted_elsewhere(layers) as shell:
        pid = daemon_of(layers)
        copy = ["nsenter", "-t", str(shell.pid), "-m", "unshare", "-m", "sh", "-c", "echo; exec cat"]
        with subprocess.Popen(copy, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"\n"
            leave(shell)
            write = ["nsenter", "-t", str(other.pid), "-m", "touch", str(layers.merged / "x")]
            subprocess.run(write, check=True, timeout=30)
            assert (layers.upper / "x").exists()
            leave(other)
        wait_gone(pid)


def test_a_mount_that_spread_to_us_stays(where: Path) -> None:
    """Made in another namespace below a shared mount, it is ours too; and unmounted here it ends."""
    shared = where / "shared"
    shared.mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True, timeout=30)
    subprocess.run(["mount", "--make-shared", shared], check=True, timeout=30)
    try:
        layers = make_layers(shared)
        with mounted_elsewhere(layers, "-m", "--propagation", "unchanged") as shell:
            pid = daemon_of(layers)
            leave(shell)
            (layers.merged / "x").write_text("kept")
            assert pyctl("umount", layers.merged).returncode == 0
            wait_gone(pid)
        assert (layers.upper / "x").read_text() == "kept"
    finally:
        subprocess.run(["umount", "-R", "-l", shared], check=False, timeout=30)


# The kernel lets a namespace be bound in an older one alone, and since Linux 6.18 numbers them by processor.
_NAMED = """
mount --bind "$1" "$1" && mount --make-private "$1" && touch "$1/mnt" || exit
name=$1/mnt && shift
unshare --mount="$name" --propagation private "$@" >/dev/null && echo mounted && cat >/dev/null
"""


def test_a_namespace_with_a_name_stays(layers: Layers, where: Path) -> None:
    """``unshare --mount=FILE``: without a process it can still be entered."""
    (where / "names").mkdir()
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", _NAMED, "sh", str(where / "names")]
    words += [str(COMMAND), *options(layers), str(layers.merged)]
    one = {min(os.sched_getaffinity(0))}
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, one),
    ) as outside:
        try:
            assert outside.stdout is not None
            assert outside.stdout.readline() == b"mounted\n"
            pid = daemon_of(layers)
            enter = ["nsenter", "-t", str(outside.pid), "-m", "nsenter", f"--mount={where}/names/mnt"]
            subprocess.run([*enter, "touch", layers.merged / "x"], check=True, timeout=30)
            assert processes.state_of(pid) not in ("", "Z")
            subprocess.run([*enter, "umount", layers.merged], check=True, timeout=30)
            wait_gone(pid)
        finally:
            outside.kill()


def test_a_daemon_that_begins_alone_stays(layers: Layers) -> None:
    """As in a unit of systemd's with a mount namespace of its own: who wants it enters there."""
    words = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        str(COMMAND),
        "-f",
        *options(layers),
        str(layers.merged),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, env={**os.environ}) as daemon:
        try:
            deadline = 200
            while pyctl("status", layers.merged).returncode and deadline:
                deadline -= 1
            look = ["nsenter", "-t", str(daemon.pid), "-m", "touch", str(layers.merged / "x")]
            subprocess.run(look, check=True, timeout=30)
            assert daemon.poll() is None
        finally:
            daemon.terminate()
            assert daemon.wait(30) == 0


def test_what_it_must_not_know_it_does_not_act_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to look at everybody it is never sure that nobody is left."""
    assert namespaces.may_know_members()
    monkeypatch.setattr(namespaces, "CAP_SYS_PTRACE", 62)
    assert not namespaces.may_know_members()


def test_members_are_counted_by_their_threads() -> None:
    """A process whose first thread has left for another namespace is in this one still."""
    script = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
ready = threading.Event()
threading.Thread(target=lambda: (ready.wait(), sys.stdin.read()), daemon=True).start()
CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
print("no" if libc.unshare(CLONE_FS | CLONE_NEWNS) else "yes", flush=True)
ready.set()
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"yes\n"
        assert processes.mount_namespace(process.pid) != processes.mount_namespace("self")
        assert list(namespaces.members(lambda pid: pid == process.pid)) == [process.pid]
        leave(process)


def test_nothing_is_watched_in_vain(layers: Layers) -> None:
    """In the machine's own namespace one pidfd is all: no wake-ups, and nothing that is looked at again."""
    result = overlayfs_py(*options(layers), layers.merged)
    assert result.returncode == 0
    try:
        pid = daemon_of(layers)
        assert len(_pidfds(pid)) == 1
    finally:
        assert pyctl("umount", layers.merged).returncode == 0


def _pidfds(pid: int) -> list[str]:
    links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return [link for link in links if "pidfd" in link]
