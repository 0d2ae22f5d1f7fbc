"""Clone an upper by sharing its blocks (reflink): this is quick, so writers need not wait until everything is
read and compressed.

Only file systems that can share blocks have it: XFS, Btrfs. cp(1) does the copying; if it cannot keep
something, it fails, and there is no clone.
"""

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.store.removing import remove
from layerstore.workspace.record import Workspace
from overlayfs_py.service.subprocesses import running
from overlayfs_py.syscalls.copy import FICLONE

_KEPT = "mode,ownership,timestamps,links,xattr"


@contextmanager
def cloned(workspace: Workspace) -> Iterator[Path | None]:
    """Yield a temporary directory with clones of ``upper`` and of the work directory's ``index``; None where
    that is impossible.
    """
    store = workspace.store
    with store.temp_dir(store.workspaces) as (place, place_fd):
        if not _shares_blocks(place, workspace.upper):
            yield None
        elif _clone(workspace, place, place_fd):
            yield place
        else:
            for name in os.listdir(place):
                remove(place / name)
            yield None


def _shares_blocks(place: Path, upper: Path) -> bool:
    """Whether files in `place` can share blocks with those of `upper`."""
    if place.lstat().st_dev != upper.lstat().st_dev:
        return False
    source, target = place / "source", place / "target"
    try:
        with source.open("w+b") as one, target.open("wb") as other:
            one.write(b"x")
            one.flush()
            fcntl.ioctl(other.fileno(), FICLONE, one.fileno())
        return True
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV):
            return False
        raise
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def _clone(workspace: Workspace, place: Path, place_fd: int) -> bool:
    """Run one cp for both, as files in the index are hard links of the upper's.

    cp has the lock on `place`, too: if this process is killed, the directory stays while cp writes to it.
    """
    sources = [path for path in (workspace.upper, workspace.work / "index") if path.is_dir()]
    command = ["cp", "-dR", "--reflink=always", f"--preserve={_KEPT}", "--", *map(str, sources), str(place)]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        with running(command, pass_fds=[place_fd], **streams) as copying:
            return copying.wait() == 0
    except FileNotFoundError:
        return False
