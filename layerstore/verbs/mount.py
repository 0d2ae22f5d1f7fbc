"""``mount`` and ``umount``: workspaces, and images read-only."""

import os
from collections.abc import Callable
from pathlib import Path

from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import find, platforms
from layerstore.model import Platform
from layerstore.store import layers
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import mounting
from layerstore.workspace.record import Workspace, all_workspaces, open_workspace


def mount(
    name: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    read_only: bool = False,
    platform: str | None = None,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
    settled: Callable[[], object] = bool,
) -> Path:
    """Mount a workspace, by default on its ``merged``, or with `read_only` an image; returns the mount point.

    `platform` chooses from an image for several platforms. The mount is usable when this returns. `settled`
    is called at the end; until it has returned, an exception or an interruption leaves nothing mounted.
    """
    if platform is not None and not read_only:
        raise LayerstoreError("--platform applies to images; a workspace's platform is fixed at creation")
    store = open_store(root)
    place = None if directory is None else Path(os.path.realpath(directory))
    if read_only:
        if place is None:
            raise LayerstoreError("mounting an image needs a directory")
        _mount_image(
            store, name, platforms.parse_optional(platform), place, progress, note_or_log(note), settled
        )
        return place
    workspace = open_workspace(store, name)
    place = place or workspace.merged
    with workspace.locked() as lock_fd:
        mounting.mount(
            workspace.reread(),
            place,
            lock_fd=lock_fd,
            progress=progress,
            note=note_or_log(note),
            settled=settled,
        )
    return place


def umount(target: str, *, force: bool = False, root: RootPath = None, note: Note | None = None) -> Path:
    """Unmount a workspace by name or mount point, or an image by mount point; returns the mount point.

    Returns when the daemon has exited, so everything written is in the upper. `force` unmounts a mount that
    is in use, and what is mounted inside it. If another mount namespace still has it, the daemon keeps
    running for that one; this is noted.
    """
    store = open_store(root)
    workspace = _workspace_of(store, target)
    if workspace is None:
        place = Path(_absolute(target))
        mounting.umount_path(place, note=note_or_log(note), force=force)
        return place
    with workspace.locked():
        workspace = mounting.umount(workspace.reread(), note=note_or_log(note), force=force)
    return Path(str(workspace.record.mountpoint))


def _mount_image(
    store: Store,
    image: str,
    wanted: Platform | None,
    place: Path,
    progress: Progress | None,
    note: Note,
    settled: Callable[[], object],
) -> None:
    # Until the mount table shows the mount, no other process knows that the layers are in use.
    with store.writing() as lock_fd:
        found = find.find(store, image, wanted)
        lowers = layers.unpack(store, found.image.layers, progress=progress, note=note)
        if not lowers:
            raise LayerstoreError(f"{image} has no layers: there is nothing to mount")
        image_id = found.image.id
        mounting.mount_image(store, place, lowers=lowers, image_id=image_id, lock_fd=lock_fd, settled=settled)


def _workspace_of(store: Store, target: str) -> Workspace | None:
    """Return the workspace of that name, else the one mounted there; None for any other directory."""
    if "/" not in target:
        try:
            return open_workspace(store, target)
        except NotFound:
            if not os.path.lexists(target):
                raise
    place = _absolute(target)
    mounted = (w for w in all_workspaces(store, []) if w.record.mountpoint == place)
    return next((w for w in mounted if mounting.state_of(w) in {"mounted", "dead"}), None)


def _absolute(path: str) -> str:
    """Return an absolute path without links; its last component is not looked up: it may be a dead mount."""
    head, tail = os.path.split(path.rstrip("/") or "/")
    if tail in {"", ".", ".."}:
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(head or "."), tail)
