"""A mounted workspace at rest: its upper is the state of one instant for as long as it is read.

The pause hangs on the conversation with the mount's daemon: it ends with this process, whatever happens.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.callbacks import Note
from layerstore.errors import LayerstoreError
from layerstore.workspace.record import Workspace
from overlayfs_py.errors import MountError
from overlayfs_py.service import client
from overlayfs_py.service.client import Connection
from overlayfs_py.service.rundir import default_run_dir
from overlayfs_py.syscalls.attrs import syncfs


@contextmanager
def paused(workspace: Workspace, *, pause: bool, note: Note) -> Iterator[bool]:
    """Write down what the kernel holds back; with `pause` hold all writers for the duration, and say for how
    long they were held, or that they could not be. Whether they are.

    LayerstoreError when the pause ended too early, so that what was read is no state that ever was.
    """
    mountpoint = Path(str(workspace.record.mountpoint))
    try:
        connection = _connect(mountpoint)
    except (MountError, OSError) as error:
        if pause:
            note(_not_paused(workspace, error))
        sync_mount(mountpoint)
        yield False
        return
    with connection:
        if pause and _freeze(connection, workspace, note):
            with _frozen(connection, workspace, note):
                yield True
            return
        with suppress(MountError):  # a volatile mount
            connection.ask("sync")
        yield False


def sync_mount(mountpoint: Path) -> None:
    """syncfs(2) on the mount: all that can be done without its daemon."""
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def _connect(mountpoint: Path) -> Connection:
    connection = client.connect(default_run_dir(os.environ, os.geteuid()), os.fsencode(mountpoint))
    connection.wait_without_limit()
    return connection


def _freeze(connection: Connection, workspace: Workspace, note: Note) -> bool:
    try:
        frozen = connection.ask("freeze", hold=True)
    except (MountError, OSError) as error:
        note(_not_paused(workspace, error))
        return False
    if frozen["pages_left"]:
        note(f"{workspace.name}: what was changed through mappings at the last moment may be missing")
    return True


@contextmanager
def _frozen(connection: Connection, workspace: Workspace, note: Note) -> Iterator[None]:
    """Thaws at the end. After a failure the end of the conversation does."""
    yield
    try:
        seconds = connection.ask("thaw")["frozen_for"]
    except (MountError, OSError) as error:
        raise LayerstoreError(f"the pause of {workspace.name} ended before all was read: {error}") from None
    note(f"{workspace.name} was paused for {seconds:.2f} s")


def _not_paused(workspace: Workspace, error: Exception) -> str:
    return f"the writers of {workspace.name} could not be paused, so files may be changing meanwhile: {error}"
