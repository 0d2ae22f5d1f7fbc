"""Freezing through real mounts: nothing changes, reading goes on, and no freeze outlives who wanted it."""

import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from overlayfs_py.errors import MountError
from overlayfs_py.service import client
from tests import rawcalls
from tests.conftest import Mounter
from tests.mounts import Layers, LowerLayers, OverlayMount, status
from tests.service.starts import one_line, pyctl
from tests.snapshots import directory, facts
from tests.waiting import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]
RUN_DIR = b"/run/overlayfs-py"

Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """run(program, *arguments): Python in a process of its own, killed at the end."""
    with ExitStack() as stack:

        def start(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-c", f"import os, sys\n{program}", *map(str, arguments)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            return process

        yield start


def daemon(mount: OverlayMount) -> client.Connection:
    return client.connect(RUN_DIR, mount.root)


def wait_held(mount: OverlayMount, count: int) -> None:
    wait_until(lambda: status(mount)["statistics"]["held"] >= count)


# Each in a directory of its own, since the kernel locks the directory for a change that waits.
CHANGES = {
    "create": "open(d + '/new', 'x')",
    "mkdir": "os.mkdir(d + '/new')",
    "mknod": "os.mkfifo(d + '/new')",
    "symlink": "os.symlink('x', d + '/new')",
    "link": "os.link(d + '/file', d + '/new')",
    "unlink": "os.unlink(d + '/file')",
    "rmdir": "os.rmdir(d + '/directory')",
    "rename": "os.rename(d + '/file', d + '/new')",
    "chmod": "os.chmod(d + '/file', 0o600)",
    "utime": "os.utime(d + '/file', (1, 1))",
    "truncate": "os.truncate(d + '/file', 1)",
    "setxattr": "os.setxattr(d + '/file', 'user.x', b'')",
    "removexattr": "os.removexattr(d + '/file', 'user.there')",
    "write": "f = os.open(d + '/file', os.O_WRONLY); os.write(f, b'xx')",
    "append": "open(d + '/upper', 'a').write('x')",
}


def test_every_change_waits_and_reading_goes_on(layers: Layers, mount: Mounter, run: Run) -> None:
    for name in CHANGES:
        (layers.lowers[0] / name / "directory").mkdir(parents=True)
        (layers.lowers[0] / name / "file").write_text("lower")
        os.setxattr(layers.lowers[0] / name / "file", "user.there", b"x")
    mounted = mount(layers)
    top = layers.merged
    for name in CHANGES:
        (top / name / "upper").write_text("upper")
        (top / name / "file").read_text()  # known: the kernel locks a directory in which a change waits
    assert pyctl("freeze", top, "--timeout", "60").returncode == 0
    before = facts(directory(layers.upper))
    changing = [run(f"d = sys.argv[1]\n{change}", top / name) for name, change in CHANGES.items()]
    wait_held(mounted, len(changing))
    for name in CHANGES.keys() - {"write"}:  # whose page the kernel has locked
        assert (top / name / "file").read_text() == "lower"
    assert len(os.listdir(top)) == len(CHANGES)
    assert facts(directory(layers.upper)) == before
    assert all(process.poll() is None for process in changing)
    assert pyctl("thaw", top).returncode == 0
    assert [process.wait(20) for process in changing] == [0] * len(changing)
    assert not (top / "unlink/file").exists()
    assert (top / "append/upper").read_text() == "upperx"
    assert status(mounted)["statistics"]["held"] == 0


# Writes ever larger numbers, first to a, then to b, by the way given.
_WRITER = """
import mmap
a, b, way = sys.argv[1:]
def plain(path, n):
    os.pwrite(fds[path], b'%12d' % n, 0)
def renamed(path, n):
    with open(path + '.new', 'wb') as new: new.write(b'%12d' % n)
    os.rename(path + '.new', path)
def mapped(path, n):
    pages[path][:12] = b'%12d' % n
def both(path, n):
    (mapped if path == a else plain)(path, n)
fds = {p: os.open(p, os.O_RDWR) for p in (a, b)}
pages = {p: mmap.mmap(fds[p], 4096) for p in (a, b)} if way == 'both' else {}
write = globals()[way]
n = 0
while True:
    n += 1
    write(a, n)
    write(b, n)
    if n == 10: print(flush=True)
"""


@pytest.mark.parametrize("way", ["plain", "renamed", "both"])
def test_the_upper_is_the_state_of_one_instant(layers: Layers, mount: Mounter, run: Run, way: str) -> None:
    """Never is b newer than a, nor a by more than one; and nothing moves while it is frozen."""
    mounted = mount(layers)
    if way == "both" and not status(mounted)["engine"]["marked_write_back"]:
        pytest.skip("the engine cannot tell pages that are written back from writes")
    top = layers.merged
    for name in "ab":
        (top / name).write_bytes(b"%12d" % 0 + bytes(4084))
    writer = run(_WRITER, top / "a", top / "b", way)
    assert writer.stdout
    writer.stdout.readline()

    def numbers() -> list[int]:
        return [int((layers.upper / name).read_bytes()[:12]) for name in "ab"]

    seen = []
    for _ in range(8):
        with daemon(mounted) as connection:
            connection.freeze(timeout=None, hold=True)
            first, second = numbers()
            assert 0 <= first - second <= 1, (first, second)
            wait_held(mounted, 1)
            assert numbers() == [first, second]
            connection.ask("thaw")
        seen.append(second)
        wait_until(lambda: numbers()[1] > seen[-1])
    assert seen[-1] > seen[0]


def test_a_copy_up_under_way_ends_first(layers: Layers, mount: Mounter, run: Run) -> None:
    """When the freeze is answered the copy is complete, or will be begun only after the thaw."""
    (layers.lowers[0] / "big").write_bytes(os.urandom(64 << 20))
    mounted = mount(layers)
    writer = run("os.pwrite(os.open(sys.argv[1], os.O_WRONLY), b'x', 0)", layers.merged / "big")
    wait_until(lambda: os.listdir(layers.work / "work"))
    with daemon(mounted) as connection:
        connection.freeze(timeout=None, hold=True)
        assert connection.ask("status")["statistics"]["copies"] == 0
        assert not os.listdir(layers.work / "work")
        before = facts(directory(layers.upper))
        wait_until(lambda: status(mounted)["statistics"]["held"] or writer.poll() is not None)
        assert facts(directory(layers.upper)) == before
    assert writer.wait(20) == 0
    assert (layers.upper / "big").stat().st_size == 64 << 20


def test_frozen_twice_and_thawed_twice(layers: Layers, mounted: OverlayMount) -> None:
    assert "frozen within" in pyctl("freeze", layers.merged).stdout
    one_line(pyctl("freeze", layers.merged), "is already frozen", program="overlayfs-pyctl")
    assert status(mounted)["frozen"]["seconds_left"] <= 60
    assert "thawed after" in pyctl("thaw", layers.merged).stdout
    one_line(pyctl("thaw", layers.merged), "is not frozen", program="overlayfs-pyctl")
    assert status(mounted)["frozen"] is None


def test_a_freeze_ends_with_its_time(layers: Layers, mounted: OverlayMount) -> None:
    assert pyctl("freeze", layers.merged, "--timeout", "0.3").returncode == 0
    (layers.merged / "late").touch()
    one_line(pyctl("thaw", layers.merged), "its time was up", program="overlayfs-pyctl")


def test_a_freeze_ends_with_who_held_it(layers: Layers, mounted: OverlayMount, run: Run) -> None:
    """kill -9 of whoever copies the upper leaves no mount frozen."""
    program = "from overlayfs_py import cli\ncli.control(['freeze', sys.argv[1], '--', 'sleep', '60'])"
    holder = run(program, layers.merged)
    wait_until(lambda: status(mounted)["frozen"])
    writer = run("open(sys.argv[1], 'x')", layers.merged / "new")
    wait_held(mounted, 1)
    holder.kill()
    assert writer.wait(20) == 0
    assert status(mounted)["frozen"] is None


def test_a_command_runs_while_it_is_frozen(layers: Layers, mounted: OverlayMount) -> None:
    """Its exit status is the command's; the mount is thawed whatever happens."""
    (layers.merged / "file").write_text("x")
    copy = pyctl("freeze", layers.merged, "--", "cp", "-a", f"{layers.upper}/file", f"{layers.work}/copy")
    assert (copy.returncode, copy.stderr) == (0, "")
    assert pyctl("freeze", layers.merged, "--", "sh", "-c", "exit 7").returncode == 7
    assert pyctl("freeze", layers.merged, "--", "sh", "-c", "kill -9 $$").returncode == 137
    one_line(pyctl("freeze", layers.merged, "--", "/not/there"), "/not/there", program="overlayfs-pyctl")
    ended = pyctl("freeze", layers.merged, "--timeout", "0.2", "--", "sleep", "1")
    one_line(ended, "its time was up", program="overlayfs-pyctl")
    assert status(mounted)["frozen"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_with_who_runs_it(
    layers: Layers, mounted: OverlayMount, run: Run, number: int
) -> None:
    """It would not know that its copy is no longer of one instant."""
    program = "from overlayfs_py import cli\ncli.control(['freeze', sys.argv[1], '--', *sys.argv[2:]])"
    marker = layers.work / "pid"
    holder = run(program, layers.merged, "sh", "-c", f"echo $$ > {marker}; exec sleep 60")
    wait_until(lambda: marker.exists() and marker.read_text())
    command = os.pidfd_open(int(marker.read_text()))
    try:
        holder.send_signal(number)
        assert holder.wait(20) == 128 + number
        assert select.select([command], [], [], 0)[0] == [command]
    finally:
        os.close(command)
    assert status(mounted)["frozen"] is None


def test_who_waits_can_be_killed(layers: Layers, mounted: OverlayMount, run: Run) -> None:
    if not status(mounted)["engine"]["interrupts"]:
        pytest.skip("the engine is not told of interrupts")
    assert pyctl("freeze", layers.merged).returncode == 0
    writer = run("open(sys.argv[1], 'x')", layers.merged / "new")
    wait_held(mounted, 1)
    writer.kill()
    writer.wait(5)
    assert pyctl("thaw", layers.merged).returncode == 0
    assert os.listdir(layers.merged) == []


@pytest.mark.parametrize("waiting", [False, True])
def test_sigterm_while_frozen(layers: Layers, mounted: OverlayMount, run: Run, waiting: bool) -> None:
    """It is thawed, so that who waits is answered, and ends as it always does."""
    assert pyctl("freeze", layers.merged).returncode == 0
    if waiting:
        writer = run("open(sys.argv[1], 'x')", layers.merged / "new")
        wait_held(mounted, 1)
    assert mounted.terminate() == 0
    if waiting:
        assert writer.wait(20) == 0
        assert (layers.upper / "new").exists()


@pytest.mark.parametrize("way", ["pyctl", "umount", "lazy"])
def test_umount_while_frozen(layers: Layers, mounted: OverlayMount, run: Run, way: str) -> None:
    assert pyctl("freeze", layers.merged).returncode == 0
    if way == "pyctl":
        assert pyctl("umount", layers.merged).returncode == 0
    elif way == "umount":
        rawcalls.umount(mounted.root, 0)
    else:  # detached while somebody waits inside: nobody would find the mount to thaw it
        writer = run("open(sys.argv[1], 'x')", layers.merged / "new")
        wait_held(mounted, 1)
        rawcalls.umount(mounted.root, rawcalls.MNT_DETACH)
        assert writer.wait(20) == 0
    assert mounted.process is not None
    assert mounted.process.wait(20) == 0


def test_sync_writes_mapped_pages(layers: Layers, mounted: OverlayMount) -> None:
    (layers.merged / "file").write_bytes(bytes(4096))
    fd = os.open(layers.merged / "file", os.O_RDWR)
    with mmap.mmap(fd, 4096) as pages:
        pages[:5] = b"dirty"
        assert pyctl("sync", layers.merged).returncode == 0
        assert (layers.upper / "file").read_bytes()[:5] == b"dirty"
        assert pyctl("freeze", layers.merged).returncode == 0
        one_line(pyctl("sync", layers.merged), "is frozen", program="overlayfs-pyctl")
        assert pyctl("thaw", layers.merged).returncode == 0
    os.close(fd)


def test_sync_of_a_volatile_mount_is_no_promise(layers: Layers, mount: Mounter) -> None:
    mount(layers, {"volatile": ""})
    one_line(pyctl("sync", layers.merged), "volatile", program="overlayfs-pyctl")
    assert pyctl("freeze", layers.merged, "--", "true").returncode == 0


def test_a_read_only_mount_freezes(layers: Layers, mount: Mounter) -> None:
    mount(LowerLayers(lowers=layers.lowers, merged=layers.merged))
    assert pyctl("freeze", layers.merged, "--", "true").returncode == 0
    assert pyctl("sync", layers.merged).returncode == 0


def test_writes_that_nobody_can_hold_are_refused(layers: Layers) -> None:
    """data=passthrough with a file open for writing: the kernel writes to the upper by itself."""
    with OverlayMount(layers, {"data": "passthrough"}, engine="native") as mounted:
        if not status(mounted)["engine"]["passthrough"]:
            pytest.skip("no passthrough here")
        with (layers.merged / "file").open("w"):
            refused = pyctl("freeze", layers.merged)
            one_line(refused, "failed", "data=passthrough", program="overlayfs-pyctl")
            (layers.merged / "other").touch()
        assert pyctl("freeze", layers.merged, "--", "true").returncode == 0


@pytest.mark.parametrize(
    "arguments", [{}, {"timeout": 0}, {"timeout": "1"}, {"timeout": 10**400}, {"hold": 1}]
)
def test_a_freeze_without_an_end_is_refused(mounted: OverlayMount, arguments: dict[str, Any]) -> None:
    with daemon(mounted) as connection:
        with pytest.raises(MountError, match=r"timeout|hold"):
            connection.ask("freeze", **arguments)
        assert connection.ask("status")["frozen"] is None
