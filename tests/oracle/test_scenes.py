"""What random walks do not draw, beside kernel overlayfs: several processes, programs, and birth times.

A scene is played on a mount and says what it saw; the kernel's must say the same.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from overlayfs_py.syscalls.statx import birth_time_ns
from tests import rawcalls
from tests.mounts import KernelMount, Layers, OverlayMount, flavours, make_layers, status

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]
Seen = list[object]
Scene = Callable[[Layers], Seen]


def stage(where: Path) -> Layers:
    """Layers to play on."""
    where.mkdir()
    layers = make_layers(where)
    (layers.lowers[0] / "file").write_bytes(b"lower" * 2000)
    shutil.copy("/bin/sleep", layers.lowers[0] / "program")
    shutil.copy("/bin/sleep", layers.lowers[0] / "other")
    return layers


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def birth_times(layers: Layers) -> Seen:
    """A lower file's is its layer's, a copy's the upper's, a new file's its own; all through the mount."""

    def of(path: Path) -> int | None:
        with opened(path.parent, os.O_PATH) as parent:
            return birth_time_ns(parent, os.fsencode(path.name))

    top, upper = layers.merged, layers.upper
    seen: Seen = [of(top / "file") == of(layers.lowers[0] / "file"), of(top / "file") is None]
    (top / "new").touch()
    (top / "file").chmod(0o600)
    return [*seen, of(top / "new") == of(upper / "new"), of(top / "file") == of(upper / "file")]


def locks(layers: Layers) -> Seen:
    """Whole files and ranges, of the same file reached by two names, by another process."""
    path = layers.merged / "locked"
    path.write_bytes(bytes(100))
    os.link(path, layers.merged / "other-name")
    take = (
        "import fcntl, errno, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "for lock in (lambda how: fcntl.flock(fd, how), lambda how: fcntl.lockf(fd, how, 10, 50),\n"
        "             lambda how: fcntl.lockf(fd, how, 10, 0)):\n"
        "    for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):\n"
        "        try: lock(how | fcntl.LOCK_NB); lock(fcntl.LOCK_UN); print('done')\n"
        "        except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    seen: Seen = []
    with opened(path, os.O_RDWR) as fd:
        for how in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
            fcntl.flock(fd, how)
            fcntl.lockf(fd, how, 10, 50)
            for name in ("locked", "other-name"):
                command = [sys.executable, "-ISc", take, str(layers.merged / name)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
                seen.append(done.stdout.split())
    return seen


def _open_and_close(path: Path, flags: int) -> None:
    with opened(path, flags):
        pass


def busy_programs(layers: Layers) -> Seen:
    """ETXTBSY in both directions, and a program that runs on after it was replaced."""
    top = layers.merged
    seen: Seen = []
    with opened(top / "other", os.O_RDWR):
        seen.append(rawcalls.outcome(lambda: subprocess.run([top / "other", "0"], check=False)))
    seen.append(rawcalls.outcome(lambda: subprocess.run([top / "other", "0"], check=False)))
    running = subprocess.Popen([top / "program", "60"])
    try:
        for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDONLY):
            seen.append(rawcalls.outcome(partial(_open_and_close, top / "program", flags)))
        seen.append(rawcalls.outcome(lambda: os.truncate(top / "program", 10)))
        seen.append(rawcalls.outcome(lambda: os.replace(top / "other", top / "program")))
        seen.append(running.poll())
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    return [*seen, (top / "program").stat().st_size == Path("/bin/sleep").stat().st_size]


def shared_mappings(layers: Layers) -> Seen:
    """What is stored is read by others at once, and is in the upper after msync."""
    path = layers.merged / "file"
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 0) as mapping:
        mapping[5:10] = b"MAPPD"
        seen: Seen = [path.read_bytes()[:15]]
        os.pwrite(fd, b"write", 0)
        seen.append(bytes(mapping[:15]))
        mapping.flush()
        seen.append((layers.upper / "file").read_bytes()[:15])
        os.ftruncate(fd, 5)
        seen.append(path.read_bytes())
    return [*seen, (layers.lowers[0] / "file").read_bytes()[:10]]


def nameless_files(layers: Layers) -> Seen:
    """O_TMPFILE, and the name it may be given, or not (O_EXCL)."""
    top = layers.merged
    libc = ctypes.CDLL(None, use_errno=True)

    def link(fd: int, name: str) -> str:
        source = b"/proc/self/fd/%d" % fd
        failed = libc.linkat(-100, source, -100, os.fsencode(top / name), 0x400)
        return errno.errorcode[ctypes.get_errno()] if failed else "done"

    seen: Seen = []
    for flags, name in ((0, "linked"), (os.O_EXCL, "refused")):
        with opened(top, os.O_TMPFILE | os.O_RDWR | flags, 0o640) as fd:
            os.write(fd, b"nameless")
            seen += [os.fstat(fd).st_nlink, sorted(os.listdir(top)), link(fd, name), os.fstat(fd).st_nlink]
    return [*seen, (top / "linked").read_bytes(), oct((top / "linked").stat().st_mode)]


def whiteouts(layers: Layers) -> Seen:
    """RENAME_WHITEOUT is not for users of an overlay."""
    source, target = (os.fsencode(layers.merged / name) for name in ("file", "moved"))
    refused = rawcalls.outcome(lambda: rawcalls.renameat2(source, target, rawcalls.RENAME_WHITEOUT))
    return [refused, sorted(os.listdir(layers.merged))]


SCENES = (birth_times, locks, busy_programs, shared_mappings, nameless_files, whiteouts)
# What an engine must be capable of for a scene.
NEEDED: dict[Scene, str] = {birth_times: "statx", nameless_files: "tmpfile"}


@pytest.mark.parametrize("engine", flavours())
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(scene: Scene, where: Path, mount: Mounter, kernel_overlay: Callable[..., KernelMount]) -> None:
    ours, kernels = (stage(where / name) for name in ("ours", "kernel"))
    engine = status(mount(ours))["engine"]
    if not engine.get(NEEDED.get(scene, ""), True):
        pytest.skip(f"the engine has no {NEEDED[scene]}")
    kernel_overlay(kernels)
    assert scene(ours) == scene(kernels)
