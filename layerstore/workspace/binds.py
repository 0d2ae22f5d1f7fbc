"""``-v HOST:PATH``: directories and files of the host, bind-mounted into a mounted workspace.

A target is opened once, beneath the mount's root and without following any symbolic link, and the mount goes
on that descriptor: an image cannot redirect it (CVE-2021-30465 and similar).
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from layerstore.errors import LayerstoreError, NotFound
from layerstore.model import HostPath
from layerstore.workspace import overlay
from layerstore.workspace.init import check_target
from layerstore.workspace.record import Bind
from overlayfs_py.syscalls.bind import bind_tree
from overlayfs_py.syscalls.openat import open_beneath

_EXPLAINED = {
    errno.ELOOP: "a symbolic link is in the way",
    errno.EPERM: "only root may bind",
}


def parse(text: str) -> Bind:
    """Parse ``HOST:PATH[:ro|rw]``; the path on the host must exist."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 2 and parts[-1] in {"ro", "rw"} else "rw"
    if len(parts) != 2 or not all(parts):
        raise LayerstoreError(f"invalid volume {text!r}: write HOST:PATH or HOST:PATH:ro")
    source, target = parts
    if not source.startswith(("/", ".")):
        raise LayerstoreError(
            f"invalid volume {text!r}: {source!r} is not a path; there are no named volumes"
        )
    source = os.path.abspath(source)
    if not os.path.exists(source):
        raise NotFound(f"invalid volume {text!r}: {source} does not exist")
    return Bind(source=HostPath(source), target=HostPath(check_target(target)), read_only=mode == "ro")


def bind_all(mountpoint: Path, binds: Sequence[Bind]) -> None:
    """Make the binds of a workspace in its mount; after a failure the caller undoes those that were made."""
    root_fd = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for bind in binds:
            _bind_one(root_fd, bind)
    finally:
        os.close(root_fd)


def unbind_all(mountpoint: Path, binds: Sequence[Bind]) -> None:
    """Undo the binds, the last first; those that are gone are skipped."""
    present = set(overlay.mounts_below(mountpoint))
    for bind in reversed(binds):
        target = os.fsencode(mountpoint) + os.fsencode(bind.target)
        if target in present:
            overlay.unmount(target, lazy=True)  # with mounts of the host below its path


def _bind_one(root_fd: int, bind: Bind) -> None:
    try:
        source_fd = os.open(bind.source, os.O_PATH | os.O_CLOEXEC)
        try:
            relative = os.fsencode(bind.target.lstrip("/"))
            target_fd = open_beneath(root_fd, relative, os.O_PATH)
            try:
                bind_tree(source_fd, target_fd, read_only=bind.read_only)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
    except OSError as error:
        why = _EXPLAINED.get(error.errno or 0) or error.strerror
        raise LayerstoreError(f"cannot bind {bind.source} to {bind.target}: {why}") from None
