"""Wait for the daemon of a mount to exit: only then has it written everything to the upper.

A daemon continues after the unmount while another mount namespace has a copy of the mount, or files in it are
open.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.callbacks import Note
from layerstore.errors import InUse, LayerstoreError
from overlayfs_py import errors
from overlayfs_py.errors import MountError, OverlayError
from overlayfs_py.syscalls import mount as mounts
from overlayfs_py.syscalls import processes

if TYPE_CHECKING:  # the control socket's client and the like: only needed for mounts
    from overlayfs_py.service.ending import Ending

_STOP_SECONDS = 120


@contextmanager
def serving(mountpoint: Path, name: str) -> Iterator["list[Ending]"]:
    """Return the daemons of this mount point, before it is unmounted; `name` is the user's name for it.

    `overlay.mount` started them with the mount point as their last argument, which the process table shows.
    """
    from overlayfs_py.service.ending import Ending

    record = mounts.mounted_filesystem(os.fsencode(mountpoint))
    connection = None if record is None else os.minor(record.device)
    with ExitStack() as held:
        found = []
        for pid in _pids_serving(mountpoint):
            if processes.connection_of(pid) in (
                None,
                connection,
            ):  # else its mount was unmounted here earlier
                with suppress(ProcessLookupError):
                    ending = Ending(pid, connection, place=name, remedy=f"layerstore umount -f {name}")
                    found.append(held.enter_context(ending))
        yield found


def wait_gone(daemons: "list[Ending]", *, force: bool, note: Note | None) -> None:
    """Wait until these have exited. One that is still in use continues, with a note, unless `force` ends
    it.
    """
    for ending in daemons:
        try:
            if remark := ending.wait(_STOP_SECONDS):
                if force:
                    ending.force(_run_dir())
                elif note is not None:
                    note(remark)
        except MountError as error:
            raise LayerstoreError(str(error)) from None


def settle(work: Path, name: str, *, force: bool = False) -> bool:
    """Return when no daemon has the work directory of a workspace that is not mounted here; False when none
    had it. InUse names what keeps a daemon running, which `force` ends.
    """
    try:
        status = os.stat(work)
    except FileNotFoundError:  # the caller that needs it reports that
        return False
    identity = (status.st_dev, status.st_ino)
    holders = processes.lock_holders(*identity)
    if not holders:
        return False

    from overlayfs_py.service.taking import open_when_free

    def look() -> bool:
        if processes.lock_holders(*identity):
            raise errors.InUse(name, identity)
        return True

    try:
        if force:
            for pid in holders:
                _force(pid, name)
        return open_when_free(look, _run_dir(), seconds=_STOP_SECONDS, remedy=f"layerstore umount -f {name}")
    except OverlayError as error:
        raise InUse(str(error)) from None


def _force(pid: int, name: str) -> None:
    from overlayfs_py.service.ending import Ending
    from overlayfs_py.service.keepers import connection_of

    connection = connection_of(pid, _run_dir())
    if connection is None:  # it is exiting
        return
    with suppress(ProcessLookupError), Ending(pid, connection, place=name, remedy=f"kill -9 {pid}") as ending:
        if not ending.is_shown_here():
            ending.force(_run_dir())


def _run_dir() -> bytes:
    from overlayfs_py.service.rundir import default_run_dir

    return default_run_dir(os.environ, os.geteuid())


def _pids_serving(mountpoint: Path) -> Iterator[int]:
    wanted = os.fsencode(mountpoint)
    for pid in processes.pids():
        words = processes.words_of(pid)
        if len(words) > 3 and words[-1] == wanted and b"overlayfs_py" in words[1:4]:
            yield pid
