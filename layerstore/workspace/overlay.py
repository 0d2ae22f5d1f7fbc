"""Mount a stack of layers with ``overlayfs-py``, and find such mounts in the mount table.

The daemon is a separate program: it is started here and outlives this process.
"""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from layerstore.errors import InUse, LayerstoreError, NotFound
from layerstore.store.store import Store
from overlayfs_py.errors import MountError
from overlayfs_py.service.subprocesses import running
from overlayfs_py.syscalls import mount as mounts
from overlayfs_py.syscalls.mount import MountRecord

_START_SECONDS = 60
_LOWERS_IN_A_WORD = 500  # an argument has at most 128 KiB
_FSTYPE = b"fuse.overlayfs-py"


def mount(
    store: Store,
    mountpoint: Path,
    *,
    lowers: Sequence[Path],
    source: str,
    lock_fd: int,
    upper: Path | None = None,
    work: Path | None = None,
    userxattr: bool = False,
) -> None:
    """Mount the layers (topmost first); return when the mount is usable. LayerstoreError has the reason of a
    failure.

    `source` is the source in the mount table. The daemon keeps the lock of `lock_fd` until the mount is
    usable or the daemon has exited, also when this process is killed: the next process with the lock finds
    all or nothing mounted. Paths are relative to ``layers/``, so that no character in them needs escaping in
    the option string.
    """
    _check_mountpoint(mountpoint)
    options = [f"fsname={source}", "aufs=off"]  # unpacked layers carry overlayfs's own marks
    if upper is not None and work is not None:
        options += [f"upperdir={_relative(store, upper)}", f"workdir={_relative(store, work)}"]
        options += ["redirect_dir=on", "metacopy=on" if not userxattr else "metacopy=off", "index=on"]
    if userxattr:
        options.append("userxattr")
    if os.geteuid() == 0:
        options.append("allow_other")
    words = ["-o", ",".join(options)]
    for at in range(0, len(lowers), _LOWERS_IN_A_WORD):
        some = lowers[at : at + _LOWERS_IN_A_WORD]
        words += ["-o", ",".join(f"lowerdir+={_relative(store, path)}" for path in some)]
    _run([*words, str(mountpoint)], cwd=store.layers, mountpoint=mountpoint, lock_fd=lock_fd)


def mounted_at(mountpoint: Path) -> MountRecord | None:
    """Return the overlay that is mounted at exactly this path, dead or alive; None for anything else."""
    record = mounts.mounted_filesystem(os.fsencode(mountpoint))
    return record if record is not None and record.fstype == _FSTYPE else None


def is_dead(mountpoint: Path) -> bool:
    """Whether the daemon of a mount is gone."""
    return mounts.is_stale(os.fsencode(mountpoint))


def mounts_of(source: str) -> list[MountRecord]:
    """Return the overlays in the mount table with this source."""
    name = os.fsencode(source)
    return [record for record in mounts.mount_table() if record.fstype == _FSTYPE and record.source == name]


def mounts_below(mountpoint: Path) -> list[bytes]:
    """Return the mount points inside a mount, innermost first."""
    top = os.path.realpath(os.fsencode(mountpoint.parent)) + b"/" + os.fsencode(mountpoint.name) + b"/"
    return [r.mountpoint for r in mounts.mount_table() if r.mountpoint.startswith(top)][::-1]


def unmount(mountpoint: bytes, *, lazy: bool = False) -> None:
    """Unmount one mount point; InUse when it is busy."""
    try:
        mounts.unmount(mountpoint, lazy=lazy)
    except MountError as error:
        raise InUse(str(error)) from None


def _relative(store: Store, path: Path) -> str:
    return os.path.relpath(path, store.layers)


def _check_mountpoint(mountpoint: Path) -> None:
    try:
        is_dir = mountpoint.is_dir()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise LayerstoreError(f"a dead mount is at {mountpoint}: unmount it first") from None
        raise
    if not is_dir:
        raise NotFound(f"the mount point {mountpoint} is not a directory")


def _run(words: Sequence[str], *, cwd: Path, mountpoint: Path, lock_fd: int) -> None:
    command = [sys.executable, "-P", "-m", "overlayfs_py", *words]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    apart = {"process_group": 0}  # Ctrl-C is for this process only, which may be restoring a mount
    # A file, not a pipe: reading a pipe would wait for the daemon, which keeps its stderr.
    with tempfile.TemporaryFile() as complaints:
        try:
            with running(
                command, cwd=cwd, stderr=complaints, pass_fds=[lock_fd], **streams, **apart
            ) as process:
                status = process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            raise LayerstoreError(
                f"cannot mount {mountpoint}: not usable after {_START_SECONDS} seconds"
            ) from None
        complaints.seek(0)
        lines = complaints.read(1 << 16).decode(errors="backslashreplace").strip().splitlines()
    if status != 0:
        why = (
            lines[-1].removeprefix("overlayfs-py: ") if lines else f"overlayfs-py exited with status {status}"
        )
        raise LayerstoreError(why if why.startswith("cannot mount") else f"cannot mount {mountpoint}: {why}")
