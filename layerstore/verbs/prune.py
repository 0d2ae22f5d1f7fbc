"""``prune`` and ``df``: what nobody needs goes, and what everything takes."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from layerstore.digest import Digest
from layerstore.errors import InUse, LayerstoreError, NotFound
from layerstore.image import find
from layerstore.image.find import Found
from layerstore.store import index, locking, partials, sweep, usage
from layerstore.store.store import Store
from layerstore.verbs.ps import rm
from layerstore.verbs.setting import Note, Root, noting, open_store
from layerstore.verbs.tag import is_mounted, kept_for_workspaces
from layerstore.workspace import mounting
from layerstore.workspace.record import all_workspaces


@dataclass(slots=True)
class Pruned:
    """What was removed, and how much room it took on disk."""

    workspaces: list[str] = field(default_factory=list)
    untagged: list[str] = field(default_factory=list)
    deleted: list[Digest] = field(default_factory=list)  # image IDs, then diffIDs
    freed: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``df``: how many, how many in use, bytes on disk, bytes that could be freed."""

    type: str
    total: int
    active: int
    size: int
    reclaimable: int


def prune(
    *, all_images: bool = False, workspaces: bool = False, root: Root = None, note: Note | None = None
) -> Pruned:
    """Remove nameless images that no workspace needs, and every blob, layer and unfinished download that no
    image needs; `all_images`: images with names too; `workspaces`: first those that are not mounted, with all
    that was written in them.
    """
    store, note = open_store(root), noting(note)
    pruned = Pruned()
    if workspaces:
        _prune_workspaces(store, pruned)
    broken: list[LayerstoreError] = []
    for found in find.all_images(store, broken):
        if (all_images or not found.names) and not _is_used(store, found):
            index.remove(store, found.entry.digest)
            pruned.untagged += found.names
            pruned.deleted.append(found.image.id)
    for error in broken:
        note(f"{error} (layerstore fsck says more)")
    swept = sweep.sweep(store, kept_for_workspaces(store))
    if not swept.alone:
        note("an image is being added just now: what is left over goes with the next prune")
    pruned.deleted += swept.layers
    pruned.freed += swept.freed + partials.sweep(store)
    return pruned


def df(*, root: Root = None, note: Note | None = None) -> list[Usage]:
    """What images, unpacked layers, workspaces and unfinished downloads take."""
    store, note = open_store(root), noting(note)
    broken: list[LayerstoreError] = []
    images = find.all_images(store, broken)
    for error in broken:
        note(str(error))
    used = [one for one in images if _is_used(store, one)]
    kept = [*(one.entry for one in used), *kept_for_workspaces(store)]
    needed = sweep.needed_by(store, kept)
    blob_sizes = _sizes(store.blobs)
    layer_sizes = _sizes(store.layers)
    return [
        Usage(
            type="Images",
            total=len(images),
            active=len(used),
            size=sum(blob_sizes.values()),
            reclaimable=sum(size for name, size in blob_sizes.items() if name not in needed),
        ),
        Usage(
            type="Layers",
            total=len(layer_sizes),
            active=sum(name in needed for name in layer_sizes),
            size=sum(layer_sizes.values()),
            reclaimable=sum(size for name, size in layer_sizes.items() if name not in needed),
        ),
        _workspace_usage(store),
        _partial_usage(store),
    ]


def _sizes(directory: Path) -> dict[str, int]:
    """What each finished object in a directory of the store takes, by name."""
    names = (name for name in os.listdir(directory) if not name.startswith(locking.TEMP_PREFIX))
    return {name: usage.tree_size(directory / name) for name in names}


def _workspace_usage(store: Store) -> Usage:
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for workspace in all_workspaces(store, []):
        size = usage.tree_size(workspace.upper) + usage.tree_size(workspace.work)
        sizes[mounting.state_of(workspace) == "mounted"].append(size)
    return Usage(
        type="Workspaces",
        total=len(sizes[True]) + len(sizes[False]),
        active=len(sizes[True]),
        size=sum(sizes[True]) + sum(sizes[False]),
        reclaimable=sum(sizes[False]),
    )


def _partial_usage(store: Store) -> Usage:
    directory = partials.directory(store)
    try:
        sizes = [usage.file_size(directory / name) for name in os.listdir(directory)]
    except FileNotFoundError:
        sizes = []
    return Usage(type="Unfinished pulls", total=len(sizes), active=0, size=sum(sizes), reclaimable=sum(sizes))


def _is_used(store: Store, found: Found) -> bool:
    digest = found.image.descriptor.digest
    if any(one.digest == digest for one in kept_for_workspaces(store)):
        return True
    return is_mounted(found.image.id)


def _prune_workspaces(store: Store, pruned: Pruned) -> None:
    for workspace in list(all_workspaces(store, [])):
        if mounting.state_of(workspace) in {"mounted", "dead"}:
            continue
        size = usage.tree_size(workspace.path)
        try:
            rm(workspace.name, root=store.root)
        except (InUse, NotFound):
            continue  # mounted or removed meanwhile
        pruned.workspaces.append(workspace.name)
        pruned.freed += size
