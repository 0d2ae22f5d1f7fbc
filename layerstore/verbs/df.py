"""``df``: the space that everything in the store takes, and how much of it could be freed."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from layerstore.callbacks import Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.image import find
from layerstore.image.find import FoundImage
from layerstore.store import partials, sweep, usage
from layerstore.store.layernames import digest_in, is_place
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.store.sweep import Needed
from layerstore.workspace import mounting
from layerstore.workspace.record import all_workspaces
from layerstore.workspace.uses import is_used, kept_for_workspaces, mounted_layers


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``df``: how many, how many in use, bytes on disk, bytes that could be freed."""

    type: str
    total: int
    active: int
    size: int
    reclaimable: int


class ImageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The space of one image: blobs and unpacked layers shared with other images, and its own alone."""

    names: tuple[str, ...]
    id: Digest
    created: str | None
    shared: int
    unique: int
    workspaces: int


class WorkspaceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The space of one workspace's own files."""

    name: str
    image: str
    status: str
    created: str
    size: int


class LayerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One unpacked layer, and how many images have it. Several may share a diffID: see `layernames`."""

    diff_id: Digest
    size: int
    images: int


@dataclass(frozen=True, slots=True)
class UsageDetails:
    """``df -v``."""

    images: list[ImageUsage]
    layers: list[LayerUsage]
    workspaces: list[WorkspaceUsage]


def df(*, root: RootPath = None, note: Note | None = None) -> list[Usage]:
    """Return the space of images, unpacked layers, workspaces and unfinished downloads."""
    store, note = open_store(root), note_or_log(note)
    images = _images(store, note)
    used = [one for one in images if is_used(store, one)]
    kept = [*(one.entry for one in used), *kept_for_workspaces(store)]
    needed = sweep.needed_by(store, kept)
    needed.mounted = mounted_layers(store)
    blob_sizes = _sizes(store, store.blobs)
    layer_sizes = _sizes(store, store.layers)
    return [
        Usage(
            type="Images",
            total=len({one.image.id for one in images}),
            active=len({one.image.id for one in used}),
            size=sum(blob_sizes.values()),
            reclaimable=sum(size for name, size in blob_sizes.items() if name not in needed.blobs),
        ),
        Usage(
            type="Layers",
            total=len(layer_sizes),
            active=sum(needed.has_layer(name) for name in layer_sizes),
            size=sum(layer_sizes.values()),
            reclaimable=sum(size for name, size in layer_sizes.items() if not needed.has_layer(name)),
        ),
        _workspace_usage(store),
        _partial_usage(store),
    ]


def _images(store: Store, note: Note) -> list[FoundImage]:
    """Return all images; notes why others cannot be read."""
    broken: list[LayerstoreError] = []
    images = find.all_images(store, broken)
    for error in broken:
        note(str(error))
    return images


def _sizes(store: Store, directory: Path) -> dict[str, int]:
    """Return the space of each finished object in a directory of the store, by name."""
    return {name: usage.tree_size(directory / name) for name in store.names(directory)}


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


def df_details(*, root: RootPath = None, note: Note | None = None) -> UsageDetails:
    """Return the space of each image, unpacked layer and workspace."""
    store, note = open_store(root), note_or_log(note)
    images = _images(store, note)
    layer_sizes = _sizes(store, store.layers)
    sizes = {f"blob {name}": size for name, size in _sizes(store, store.blobs).items()}
    sizes |= {f"layer {name}": size for name, size in layer_sizes.items()}
    needed_by_each = [sweep.needed_by(store, [found.entry]) for found in images]
    needs = [_parts(needed) for needed in needed_by_each]
    diff_ids = {name: diff_id for needed in needed_by_each for name, diff_id in needed.diff_ids.items()}
    users = Counter(part for needed in needs for part in needed)
    based = Counter(one.record.manifest.digest for one in all_workspaces(store, []))
    return UsageDetails(
        images=[
            _image_usage(found, needed, sizes, users, based)
            for found, needed in zip(images, needs, strict=True)
        ],
        layers=[
            LayerUsage(
                diff_id=diff_ids.get(name) or digest_in(name), size=size, images=users[f"layer {name}"]
            )
            for name, size in sorted(layer_sizes.items())
            if is_place(name)
        ],
        workspaces=[
            WorkspaceUsage(
                name=one.name,
                image=one.record.image,
                status=mounting.state_of(one),
                created=one.record.created,
                size=usage.tree_size(one.upper) + usage.tree_size(one.work),
            )
            for one in all_workspaces(store, [])
        ],
    )


def _parts(needed: Needed) -> set[str]:
    """Name an image's parts: an uncompressed layer and its blob have the same digest but are two parts."""
    return {f"blob {name}" for name in needed.blobs} | {f"layer {name}" for name in needed.layers}


def _image_usage(
    found: FoundImage, needed: set[str], sizes: dict[str, int], users: Counter[str], based: Counter[Digest]
) -> ImageUsage:
    return ImageUsage(
        names=found.names,
        id=found.image.id,
        created=found.image.created,
        shared=sum(sizes.get(part, 0) for part in needed if users[part] > 1),
        unique=sum(sizes.get(part, 0) for part in needed if users[part] == 1),
        workspaces=based[found.image.descriptor.digest],
    )
