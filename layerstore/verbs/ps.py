"""``ps``, ``rm`` and ``rename``: list workspaces, remove one, give one another name."""

from collections.abc import Callable, Collection, Sequence
from typing import get_args

import msgspec

from layerstore.callbacks import Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import AlreadyExists, InUse, LayerstoreError
from layerstore.image import find
from layerstore.image.filters import InvalidFilter
from layerstore.store import usage
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import daemon, mounting, names
from layerstore.workspace.mounting import WorkspaceState
from layerstore.workspace.record import Workspace, all_workspaces, open_workspace
from layerstore.workspace.removing import remove_workspace

_FILTERS = ("ancestor", "name", "status")
_DOCKER_STATES = {"running": "mounted", "exited": "unmounted"}


class WorkspaceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``ps``."""

    name: str
    image: str
    image_id: Digest
    status: WorkspaceState
    created: str
    mountpoint: str | None
    mounted_at: str | None
    size: int | None = None  # of what was written in it, when requested


def ps(
    *, filters: Sequence[str] = (), size: bool = False, root: RootPath = None, note: Note | None = None
) -> list[WorkspaceSummary]:
    """Return all workspaces, newest first. One that cannot be read is noted and left out.

    `filters`: ``name=PART``, ``status=created|mounted|unmounted|dead`` (or docker's ``running`` and
    ``exited``), ``ancestor=IMAGE``; those of one key are alternatives.
    """
    store = open_store(root)
    test = _test(store, filters)
    broken: list[LayerstoreError] = []
    lines: list[WorkspaceSummary] = []
    for workspace in all_workspaces(store, broken):
        record, state = workspace.record, mounting.state_of(workspace)
        if not test(workspace, state):
            continue
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
                size=usage.tree_size(workspace.upper) if size else None,
            )
        )
    for error in broken:
        note_or_log(note)(str(error))
    return lines


def _test(store: Store, filters: Sequence[str]) -> Callable[[Workspace, WorkspaceState], bool]:
    """Return a test for workspaces to list. Raises InvalidFilter, or NotFound for an ancestor."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, _, value = text.partition("=")
        if key not in _FILTERS or not value:
            raise InvalidFilter(f"invalid filter {text!r}: write KEY=VALUE with one of {', '.join(_FILTERS)}")
        if key == "status":
            value = _DOCKER_STATES.get(value, value)
            if value not in get_args(WorkspaceState):
                raise InvalidFilter(f"invalid filter {text!r}: one of {', '.join(get_args(WorkspaceState))}")
        wanted.setdefault(key, []).append(value)
    ids = {find.find(store, word).image.id for word in wanted.get("ancestor", [])}

    def test(workspace: Workspace, state: WorkspaceState) -> bool:
        return (
            ("name" not in wanted or any(part in workspace.name for part in wanted["name"]))
            and ("status" not in wanted or state in wanted["status"])
            and ("ancestor" not in wanted or _descends(store, workspace, ids))
        )

    return test


def _descends(store: Store, workspace: Workspace, ids: Collection[Digest]) -> bool:
    """Return whether a workspace is over one of these images, or over an image made from one."""
    diff_ids = workspace.record.diff_ids
    for found in find.all_images(store, []):
        own = found.image.config.rootfs.diff_ids
        if found.image.id in ids and own == diff_ids[: len(own)]:
            return True
    return workspace.record.image_id in ids


def rm(name: str, *, force: bool = False, root: RootPath = None) -> None:
    """Remove a workspace and everything written in it; a mounted one only with `force`, which unmounts it.

    Raises InUse for a mounted one without `force`.
    """
    remove_workspace(open_store(root), name, force=force)


def rename(name: str, new_name: str, *, root: RootPath = None) -> None:
    """Give a workspace that is not mounted another name."""
    store = open_store(root)
    workspace = open_workspace(store, name)
    if names.check(new_name) == name:
        raise AlreadyExists(f"the workspace is already named {name}")
    with workspace.locked():
        workspace = workspace.reread()
        if mounting.state_of(workspace) in {"mounted", "dead"}:
            raise InUse(f"{name} is mounted at {workspace.record.mountpoint}: unmount it first")
        daemon.settle(workspace.work, name)
        workspace.rename(new_name)
