"""A mounted workspace at rest: written down to its upper and, if the daemon can, with its writers frozen."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.store.layers import Note
from layerstore.workspace.record import Workspace
from overlayfs_py.syscalls.attrs import syncfs

_ANSWER_SECONDS = 30


@contextmanager
def paused(workspace: Workspace, *, pause: bool, note: Note) -> Iterator[None]:
    """Write down what the kernel holds back; with `pause` freeze the mount for the duration, or remark that
    it is not.
    """
    mountpoint = Path(str(workspace.record.mountpoint))
    sync_mount(mountpoint)
    frozen = pause and _control("freeze", mountpoint)
    if pause and not frozen:
        note(f"{workspace.name} is mounted and its writers were not paused: files may be changing meanwhile")
    try:
        yield
    finally:
        if frozen and not _control("thaw", mountpoint):
            note(f"{mountpoint} may still be frozen: run overlayfs-pyctl thaw {mountpoint}")


def sync_mount(mountpoint: Path) -> None:
    """syncfs(2) on the mount: dirty pages and written-back times reach the upper."""
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _control(verb: str, mountpoint: Path) -> bool:
    """Ask the daemon by ``overlayfs-pyctl``; False when it cannot do it."""
    command = [sys.executable, "-P", "-m", "overlayfs_py.ctl", verb, str(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
