"""``ps`` and ``rm``: the list of workspaces, and taking one away."""

import msgspec

from layerstore.digest import Digest
from layerstore.errors import InUse, LayerstoreError
from layerstore.verbs.setting import Note, Root, noting, open_store
from layerstore.workspace import mounting
from layerstore.workspace.mounting import State
from layerstore.workspace.record import all_workspaces, open_workspace


class WorkspaceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``ps``."""

    name: str
    image: str
    image_id: Digest
    status: State
    created: str
    mountpoint: str | None
    mounted_at: str | None


def ps(*, root: Root = None, note: Note | None = None) -> list[WorkspaceSummary]:
    """All workspaces, newest first. One that cannot be read is told to `note` and left out."""
    broken: list[LayerstoreError] = []
    lines: list[WorkspaceSummary] = []
    for workspace in all_workspaces(open_store(root), broken):
        record, state = workspace.record, mounting.state_of(workspace)
        mounted = state in {"mounted", "dead"}
        lines.append(
            WorkspaceSummary(
                name=record.name,
                image=record.image,
                image_id=record.image_id,
                status=state,
                created=record.created,
                mountpoint=record.mountpoint if mounted else None,
                mounted_at=record.mounted_at if mounted else None,
            )
        )
    for error in broken:
        noting(note)(str(error))
    return lines


def rm(name: str, *, force: bool = False, root: Root = None) -> None:
    """Remove a workspace with all that was written in it; a mounted one only with `force`, which unmounts
    it.
    """
    store = open_store(root)
    workspace = open_workspace(store, name)
    with workspace.locked():
        workspace = workspace.reread()
        if mounting.state_of(workspace) in {"mounted", "dead"}:
            if not force:
                raise InUse(
                    f"{name} is mounted at {workspace.record.mountpoint}: umount it first, or use rm -f"
                )
            mounting.umount(workspace, force=True)
        store.discard(workspace.path)
