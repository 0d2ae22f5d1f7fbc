"""Pause a mounted workspace: its upper is the state of one instant while it is read.

The pause lasts as long as the connection to the mount's daemon: it ends with this process in any case.
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
    """Write cached data to the upper; with `pause` also hold all writers meanwhile, and report for how long,
    or that it was not possible. Yields whether writers are held.

    LayerstoreError when the pause ended too early: what was read is then not a consistent state.
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
    """Do syncfs(2) on the mount: nothing else is possible without its daemon."""
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
        note(f"{workspace.name}: recent changes through memory mappings may be missing")
    return True


@contextmanager
def _frozen(connection: Connection, workspace: Workspace, note: Note) -> Iterator[None]:
    """Thaw at the end. After a failure, closing the connection does that."""
    yield
    try:
        seconds = connection.ask("thaw")["frozen_for"]
    except (MountError, OSError) as error:
        raise LayerstoreError(
            f"the pause of {workspace.name} ended before everything was read: {error}"
        ) from None
    note(f"{workspace.name} was paused for {seconds:.2f} s")


def _not_paused(workspace: Workspace, error: Exception) -> str:
    return (
        f"the writers of {workspace.name} could not be paused; files may change while they are read: {error}"
    )
