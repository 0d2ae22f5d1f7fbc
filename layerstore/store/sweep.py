"""Remove blobs and unpacked layers that no image of the store needs: mark from ``index.json``, then sweep.

Nothing is removed while a process adds an image, whose blobs are in the store before its name is, nor when an
entry of the index cannot be read, since what it needs is unknown then.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, NotFound
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, index, twins, usage
from layerstore.store.layernames import all_names, digest_in, is_set_aside, places_of
from layerstore.store.removing import remove
from layerstore.store.store import Store

_HEX = re.compile(r"[0-9a-f]{64}")
_ANY_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")


@dataclass(slots=True)
class Needed:
    """The blobs and unpacked layers that images need, by name (`layernames`). Two sets, as the blob of an
    uncompressed layer has the unpacked layer's name, and one may be needed without the other.
    """

    blobs: set[str] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    diff_ids: dict[str, Digest] = field(default_factory=dict)  # of those layers
    mounted: Collection[Digest] = ()  # diffIDs

    def has_layer(self, name: str) -> bool:
        """Whether a layer must stay: an image needs it, or a mount from an older store may use it."""
        return name in self.layers or (is_set_aside(name) and digest_in(name) in self.mounted)


@dataclass(slots=True)
class Swept:
    """What a sweep removed, and why some of it stays. `alone` is False when it did nothing because another
    process was writing.
    """

    alone: bool = True
    layers: list[Digest] = field(default_factory=list)  # diffIDs, or chainIDs
    blobs: list[Digest] = field(default_factory=list)
    freed: int = 0  # bytes on disk
    kept: list[LayerstoreError | OSError] = field(default_factory=list)


def sweep(
    store: Store,
    extra: Iterable[Descriptor] = (),
    *,
    only: Collection[Digest] | None = None,
    mounted: Collection[Digest] = (),
) -> Swept:
    """Remove what neither the index nor the manifests in `extra` need.

    With `only`, only these blobs are considered, and no layers. `mounted`: diffIDs that mounts use, which
    stay. Does nothing while another process is writing; the next sweep removes the rest then.
    """
    with store.sweeping() as alone:
        if not alone:
            return Swept(alone=False)
        needed = needed_by(store, [*index.read(store).manifests, *extra])
        swept = Swept()
        if only is None:
            needed.mounted = mounted
            _sweep_layers(store, needed, swept)
        _sweep_blobs(store, needed.blobs, only, swept)
        return swept


def needed_by(store: Store, entries: Iterable[Descriptor]) -> Needed:
    """Return all blobs and layers that these images need."""
    needed = Needed()
    stand_ins = twins.known(index.all_stored(store))
    for entry in entries:
        _mark(store, entry, needed)
        if entry.digest in stand_ins:
            _mark(store, stand_ins[entry.digest], needed)
    return needed


def _mark(store: Store, entry: Descriptor, needed: Needed) -> None:
    if entry.digest.hex in needed.blobs:
        return
    needed.blobs.add(entry.digest.hex)
    try:
        raw = blobs.read_blob(store, entry)
    except NotFound:
        return  # it is gone, and so is what it refers to
    if entry.media_type in media.INDEXES:
        for nested in model.parse_index(raw, entry.media_type).manifests:
            _mark(store, nested, needed)
        return
    if entry.media_type not in media.MANIFESTS:
        needed.blobs.update(digest.decode() for digest in _ANY_DIGEST.findall(raw))  # another tool's
        return
    manifest = model.parse_manifest(raw, entry.media_type)
    needed.blobs.update(descriptor.digest.hex for descriptor in (manifest.config, *manifest.layers))
    is_image = all(media.layer_compression(layer.media_type) for layer in manifest.layers)
    if is_image and manifest.config.media_type in media.CONFIGS and blobs.is_present(store, manifest.config):
        config = model.parse_config(blobs.read_blob(store, manifest.config))
        for place in places_of(config.rootfs.diff_ids):
            names = {place.own, place.shared}
            if place.find(store) is None:
                names.add(place.old)  # it may prove to be the same
            needed.layers |= names
            needed.diff_ids |= dict.fromkeys(names, place.diff_id)


def _sweep_layers(store: Store, needed: Needed, swept: Swept) -> None:
    for name in all_names(store):
        if needed.has_layer(name):
            continue
        size = usage.tree_size(store.layers / name)
        try:
            store.discard(store.layers / name)
        except (LayerstoreError, OSError) as error:
            swept.kept.append(error)
            continue
        swept.freed += size
        swept.layers.append(digest_in(name))


def _sweep_blobs(
    store: Store, needed: Collection[str], only: Collection[Digest] | None, swept: Swept
) -> None:
    for name in filter(_HEX.fullmatch, store.names(store.blobs)):
        if name in needed:
            continue
        digest = Digest(f"sha256:{name}")
        if only is None or digest in only:
            path = store.blobs / name
            if path.is_dir():
                continue  # not a blob; fsck reports it
            size = usage.file_size(path)
            if (error := remove(path)) is not None:
                swept.kept.append(error)
                continue
            swept.freed += size
            swept.blobs.append(digest)
    if swept.blobs:
        durable.fsync_dir(store.blobs)
