"""``prune``: remove what is not needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from layerstore.callbacks import Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import InUse, LayerstoreError, NotFound, explain
from layerstore.image import filters as image_filters
from layerstore.image import find, human
from layerstore.image.filters import ImageTest
from layerstore.store import index, partials, sweep, usage
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import mounting
from layerstore.workspace.record import all_workspaces
from layerstore.workspace.removing import remove_workspace
from layerstore.workspace.uses import is_used, kept_for_workspaces, mounted_layers


@dataclass(slots=True)
class Pruned:
    """What was removed, and how much space that freed."""

    workspaces: list[str] = field(default_factory=list)
    untagged: list[str] = field(default_factory=list)
    deleted: list[Digest] = field(default_factory=list)  # image IDs, then diffIDs
    freed: int = 0


def prune(
    *,
    images: bool = True,
    all_images: bool = False,
    workspaces: bool = False,
    filters: Sequence[str] = (),
    root: RootPath = None,
    note: Note | None = None,
) -> Pruned:
    """Remove nameless images that no workspace needs, and blobs, layers and downloads that no image needs.

    `all_images` also removes images with names. `workspaces` first removes workspaces that are not mounted,
    with everything written in them; without `images` it removes only those. `filters` (``until=TIME``,
    ``label=KEY[=VALUE]``, ``label!=...``) keep what does not match; workspaces have no labels.
    """
    store, note = open_store(root), note_or_log(note)
    test = image_filters.parse(filters, image_filters.PRUNED, store)
    pruned = Pruned()
    if workspaces:
        _prune_workspaces(store, _before(filters), pruned)
    if images:
        _prune_images(store, test, pruned, all_images=all_images, note=note)
    return pruned


def _prune_images(store: Store, test: ImageTest, pruned: Pruned, *, all_images: bool, note: Note) -> None:
    broken: list[LayerstoreError] = []
    everything = find.all_images(store, broken)
    going = {
        found.entry.digest: found
        for found in everything
        if (all_images or not found.names) and test(found, None) and not is_used(store, found)
    }
    staying = {found.image.id for found in everything if found.entry.digest not in going}
    for digest, found in going.items():
        index.remove(store, digest)
        pruned.untagged += sorted(found.names) + sorted({*found.digests} - {*found.names})
        if found.image.id not in staying:
            staying.add(found.image.id)  # listed once
            pruned.deleted.append(found.image.id)
    for error in broken:
        note(f"{error} (layerstore fsck shows more)")
    swept = sweep.sweep(store, kept_for_workspaces(store), mounted=mounted_layers(store))
    if not swept.alone:
        note("another process is adding an image: the next prune removes what is left over")
    for why in swept.kept:
        note(f"not removed: {explain(why)}")
    pruned.deleted += swept.layers
    pruned.freed += swept.freed + partials.sweep(store)


def _before(filters: Sequence[str]) -> datetime | None:
    """Return the time before which a workspace must have been made to be removed; None: any time."""
    times = []
    for text in filters:
        key, _, value = text.partition("=")
        if key != "until":
            raise LayerstoreError(f"{text}: the only filter for workspaces is until=TIME")
        times.append(image_filters.moment(value))
    return min(times, default=None)


def _prune_workspaces(store: Store, before: datetime | None, pruned: Pruned) -> None:
    for workspace in list(all_workspaces(store, [])):
        if mounting.state_of(workspace) in {"mounted", "dead"}:
            continue
        created = human.parse_time(workspace.record.created)
        if before is not None and (created is None or created >= before):
            continue
        size = usage.tree_size(workspace.path)
        try:
            remove_workspace(store, workspace.name)
        except (InUse, NotFound):
            continue  # mounted or removed meanwhile
        pruned.workspaces.append(workspace.name)
        pruned.freed += size
