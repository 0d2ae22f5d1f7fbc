"""Mounting and unmounting a workspace, and its state as the mount table has it."""

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
    """What the mount table shows as the source of a workspace's or an image's mount."""
    return f"layerstore:{name}"


def state_of(workspace: Workspace) -> WorkspaceState:
    """``created``: never mounted; ``dead``: mounted, but its daemon has gone."""
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
    """Mount a workspace with its binds; under its lock, which `lock_fd` holds. Returns when the mount
    answers, or leaves nothing mounted.

    `settled` is called when all is done, the last that may still fail or be interrupted.
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
    # Written first: whatever ends this process, the mount is known as this workspace's.
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
        with suppress(OSError):  # without room it is one that was mounted once
            saved.save(mountpoint=before.mountpoint, mounted_at=before.mounted_at)
        raise


def umount(
    workspace: Workspace, *, note: Note | None = None, force: bool = False, wait: bool = True
) -> Workspace:
    """Unmount a workspace and wait for its daemon; under its lock. `force`: whatever is inside or uses it, in
    another mount namespace too. Without, a daemon that goes on for that is told to `note`.

    Who was interrupted does not `wait`: what was just being opened may stay open until this process ends, and
    so may the daemon.
    """
    if workspace.record.mountpoint is None or state_of(workspace) not in {"mounted", "dead"}:
        if daemon.settle(workspace.work, workspace.name, force=force):
            return workspace
        raise LayerstoreError(f"{workspace.name} is not mounted")
    # The record stays: the mount table says it all, and there may be no room for another.
    _take_down(Path(workspace.record.mountpoint), workspace, note=note, force=force, wait=wait)
    return workspace


def umount_path(mountpoint: Path, *, note: Note | None = None, force: bool = False) -> None:
    """Unmount an overlay that is no workspace's (an image's), and wait for its daemon."""
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
    """Unpack the layers of a workspace's image again if somebody removed them."""
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
        # Nothing inside can be reached any more; all of it goes with the mount.
        overlay.unmount(os.fsencode(mountpoint), lazy=True)
        return
    own = [] if workspace is None else workspace.record.binds
    with daemon.serving(mountpoint, name) as daemons:
        with postponed():  # no half of it: without its binds it is not what it was
            binds.unbind_all(mountpoint, own)
            try:
                _unmount(mountpoint, force=force)
            except InUse:
                binds.bind_all(mountpoint, own)  # it goes on as it was
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
