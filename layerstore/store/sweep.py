"""Remove blobs and unpacked layers that no image of the store needs: mark from ``index.json``, then sweep.

Nothing is removed while anybody is adding an image (its blobs are in the store before its name is), nor when
something in the index cannot be read: then what it needs is not known.
"""

import os
import re
from collections.abc import Iterable

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import NotFound
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, index
from layerstore.store.store import Store

_HEX = re.compile(r"[0-9a-f]{64}")


def sweep(store: Store, extra: Iterable[Descriptor] = ()) -> list[Digest]:
    """Remove what neither the index nor the manifests in `extra` lead to; returns the diffIDs and digests
    removed.

    Does nothing when somebody is writing; what is left over then goes with the next sweep.
    """
    with store.sweeping() as alone:
        if not alone:
            return []
        needed: set[str] = set()
        for entry in [*index.read(store).manifests, *extra]:
            _mark(store, entry, needed)
        removed = _sweep_layers(store, needed)
        _sweep_blobs(store, needed)
        return removed


def _mark(store: Store, entry: Descriptor, needed: set[str]) -> None:
    if entry.digest.hex in needed:
        return
    needed.add(entry.digest.hex)
    try:
        raw = blobs.read_blob(store, entry)
    except NotFound:
        return  # it is gone already, and so is what only it could tell
    if entry.media_type in media.INDEXES:
        for nested in model.parse_index(raw, entry.media_type).manifests:
            _mark(store, nested, needed)
        return
    manifest = model.parse_manifest(raw, entry.media_type)
    needed.update(descriptor.digest.hex for descriptor in (manifest.config, *manifest.layers))
    if manifest.config.media_type in media.CONFIGS and blobs.is_present(store, manifest.config):
        config = model.parse_config(blobs.read_blob(store, manifest.config))
        needed.update(diff_id.hex for diff_id in config.rootfs.diff_ids)


def _sweep_layers(store: Store, needed: set[str]) -> list[Digest]:
    unneeded = [
        name for name in sorted(os.listdir(store.layers)) if _HEX.fullmatch(name) and name not in needed
    ]
    for name in unneeded:
        store.discard(store.layers / name)
    return [Digest(f"sha256:{name}") for name in unneeded]


def _sweep_blobs(store: Store, needed: set[str]) -> None:
    unneeded = [
        name for name in sorted(os.listdir(store.blobs)) if _HEX.fullmatch(name) and name not in needed
    ]
    for name in unneeded:
        (store.blobs / name).unlink()
    durable.fsync_dir(store.blobs)
