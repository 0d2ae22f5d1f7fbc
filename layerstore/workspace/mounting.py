"""Mount and unmount workspaces, and their state in the mount table."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from layerstore.callbacks import Note, Progress
from layerstore.environment import format_time
from layerstore.errors import InUse, LayerstoreError
from layerstore.image.image import load
from layerstore.model import HostPath
from layerstore.store import layers
from layerstore.store.store import Store
from layerstore.workspace import binds, daemon, fitting, overlay
from layerstore.workspace.record import Workspace
from overlayfs_py.service.subprocesses import postponed

WorkspaceState = Literal["created", "mounted", "unmounted", "dead"]


def source_of(name: str) -> str:
    """Return the source of a workspace's or an image's mount in the mount table."""
    return f"layerstore:{name}"


def state_of(workspace: Workspace) -> WorkspaceState:
    """``created``: never mounted; ``dead``: mounted, but its daemon is gone."""
    if workspace.record.mountpoint is None:
        return "created"
    mountpoint = Path(workspace.record.mountpoint)
    record = overlay.mounted_at(mountpoint)
    if record is None or record.source != os.fsencode(source_of(workspace.name)):
        return "unmounted"
    return "dead" if overlay.is_dead(mountpoint) else "mounted"


def mount(
    workspace: Workspace,
    mountpoint: Path,
    *,
    lock_fd: int,
    progress: Progress | None,
    note: Note,
    settled: Callable[[], object] = bool,
) -> Workspace:
    """Mount a workspace with its binds; under its lock, which `lock_fd` holds. Return when the mount is
    usable; after a failure nothing is mounted.

    Calls `settled` at the end, which may also fail or be interrupted.
    """
    state = state_of(workspace)
    if state in {"mounted", "dead"}:
        place = workspace.record.mountpoint
        raise InUse(
            f"{workspace.name} is mounted already at {place}"
            if state == "mounted"
            else f"{workspace.name}: a dead mount is at {place}; unmount it first"
        )
    daemon.settle(workspace.work, workspace.name)
    prepare_layers(workspace, progress=progress, note=note)
    fitting.fit(workspace)
    before = workspace.record
    # Written first: if this process is killed, the mount is still known as this workspace's.
    saved = workspace.save(
        mountpoint=HostPath(mountpoint),
        mounted_at=format_time(time.time_ns()),
        lower_inodes=fitting.inodes(workspace.lowers),
    )
    try:
        overlay.mount(
            saved.store,
            mountpoint,
            lowers=saved.lowers,
            source=source_of(saved.name),
            lock_fd=lock_fd,
            upper=saved.upper,
            work=saved.work,
            userxattr=layers.uses_userxattr(saved.store),
        )
        binds.bind_all(mountpoint, saved.record.binds)
        settled()
        return saved
    except BaseException as error:
        with suppress(LayerstoreError):
            if state_of(saved) == "mounted":
                _take_down(mountpoint, saved, force=True, wait=isinstance(error, Exception))
        with suppress(OSError):  # without space it counts as mounted before
            saved.save(mountpoint=before.mountpoint, mounted_at=before.mounted_at)
        raise


def umount(
    workspace: Workspace, *, note: Note | None = None, force: bool = False, wait: bool = True
) -> Workspace:
    """Unmount a workspace and wait for its daemon; under its lock. `force`: also if something is mounted
    inside or uses it, in another mount namespace, too. Without it, `note` reports a daemon that continues for
    that reason.

    An interrupted process does not `wait`: files that it was opening may stay open until it exits, and so may
    the daemon.
    """
    if workspace.record.mountpoint is None or state_of(workspace) not in {"mounted", "dead"}:
        if daemon.settle(workspace.work, workspace.name, force=force):
            return workspace
        raise LayerstoreError(f"{workspace.name} is not mounted")
    # The record stays: the mount table has the state, and there may be no space for a new record.
    _take_down(Path(workspace.record.mountpoint), workspace, note=note, force=force, wait=wait)
    return workspace


def umount_path(mountpoint: Path, *, note: Note | None = None, force: bool = False) -> None:
    """Unmount an image's overlay, and wait for its daemon."""
    if overlay.mounted_at(mountpoint) is None:
        raise LayerstoreError(f"{mountpoint} is not a mount of overlayfs-py")
    _take_down(mountpoint, None, note=note, force=force)


def mount_image(
    store: Store,
    mountpoint: Path,
    *,
    lowers: list[Path],
    image_id: str,
    lock_fd: int,
    settled: Callable[[], object] = bool,
) -> None:
    """Mount an image's layers read-only; under `Store.writing`, which `lock_fd` holds; `settled` as for
    `mount`.
    """
    before = overlay.mounted_at(mountpoint)
    try:
        overlay.mount(
            store,
            mountpoint,
            lowers=lowers,
            source=source_of(image_id),
            lock_fd=lock_fd,
            userxattr=layers.uses_userxattr(store),
        )
        settled()
    except BaseException as error:
        now = overlay.mounted_at(mountpoint)
        if now is not None and now != before:
            with suppress(LayerstoreError):
                _take_down(mountpoint, None, force=True, wait=isinstance(error, Exception))
        raise


def prepare_layers(workspace: Workspace, *, progress: Progress | None = None, note: Note) -> None:
    """Unpack the layers of a workspace's image again if they were removed."""
    if not layers.are_unpacked(workspace.store, workspace.record.diff_ids):
        image = load(workspace.store, workspace.record.manifest)
        layers.unpack(workspace.store, image.layers, progress=progress, note=note)


def _take_down(
    mountpoint: Path,
    workspace: Workspace | None,
    *,
    note: Note | None = None,
    force: bool = False,
    wait: bool = True,
) -> None:
    name = str(mountpoint) if workspace is None else workspace.name
    if overlay.is_dead(mountpoint):
        # Mounts inside are not reachable any more; they go with the mount.
        overlay.unmount(os.fsencode(mountpoint), lazy=True)
        return
    own = [] if workspace is None else workspace.record.binds
    with daemon.serving(mountpoint, name) as daemons:
        with postponed():  # both or none: a mount without its binds is not the same
            binds.unbind_all(mountpoint, own)
            try:
                _unmount(mountpoint, force=force)
            except InUse:
                binds.bind_all(mountpoint, own)  # the mount continues as before
                raise
        if wait:
            daemon.wait_gone(daemons, force=force, note=note)


def _unmount(mountpoint: Path, *, force: bool) -> None:
    inside = overlay.mounts_below(mountpoint)
    if inside and not force:
        raise InUse(f"cannot unmount {mountpoint}: {os.fsdecode(inside[-1])} is mounted inside")
    for path in inside:
        overlay.unmount(path, lazy=True)
    overlay.unmount(os.fsencode(mountpoint), lazy=force)
