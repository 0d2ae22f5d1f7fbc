"""New images from layers that are in the store: configuration, manifest, name.

The parent's manifest entries are taken over byte for byte; a child differs by its new layer, its history
and what the instructions changed. Everything is stored before the name is: a name never points at half an
image.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.image import instructions
from layerstore.image.image import Image
from layerstore.model import Descriptor, Platform
from layerstore.reference import Reference
from layerstore.store import blobs, index
from layerstore.store.store import Store

# These describe the container docker made the parent in, not the image.
_OF_A_CONTAINER = ("container", "container_config", "docker_version", "id", "parent")


class HistoryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What history will say about a new image."""

    created: str
    author: str = ""
    created_by: str = ""
    comment: str = ""


class NewLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer whose blob is in the store."""

    descriptor: Descriptor
    diff_id: Digest


def write_first(
    store: Store,
    layer: NewLayer,
    step: HistoryDetails,
    *,
    platform: Platform,
    changes: Sequence[str],
    ref: Reference | None,
) -> Digest:
    """An image of one layer; returns the image ID."""
    document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    return _write(store, document, [], layer, step, changes, ref)


def write_child(
    store: Store,
    parent: Image,
    layer: NewLayer | None,
    step: HistoryDetails,
    *,
    changes: Sequence[str],
    ref: Reference | None,
) -> Digest:
    """An image that adds a layer to `parent`, or with None only a step of history; returns the image ID."""
    document = model.parse_document(parent.raw_config)
    for key in _OF_A_CONTAINER:
        document.pop(key, None)
    # Triggers are for whoever builds on an image, not for what is made in a container of it.
    document["history"] = _history_of(parent, document.get("history") or [])
    document["config"] = {
        key: value for key, value in (document.get("config") or {}).items() if key != "OnBuild"
    }
    # Same blobs, same digests; only Docker's names for the types give way to OCI's, as the manifest is an OCI
    # one.
    layers = [
        msgspec.structs.replace(old, media_type=media.oci_name(old.media_type))
        for old in parent.manifest.layers
    ]
    return _write(store, document, layers, layer, step, changes, ref)


def _write(
    store: Store,
    document: dict[str, Any],
    layers: Sequence[Descriptor],
    layer: NewLayer | None,
    step: HistoryDetails,
    changes: Sequence[str],
    ref: Reference | None,
) -> Digest:
    diff_ids = [*((document.get("rootfs") or {}).get("diff_ids") or [])]
    document["rootfs"] = {
        "type": "layers",
        "diff_ids": diff_ids if layer is None else [*diff_ids, layer.diff_id],
    }
    document["history"] = [*(document.get("history") or []), _history_entry(step, empty=layer is None)]
    document["created"] = step.created
    document.pop("author", None)
    if step.author:
        document["author"] = step.author
    document["config"] = instructions.apply(document.get("config") or {}, changes)
    raw_config = model.encode(document)
    config = Descriptor(
        media_type=media.OCI_CONFIG, digest=blobs.put_bytes(store, raw_config), size=len(raw_config)
    )
    manifest = model.Manifest(
        schema_version=2,
        media_type=media.OCI_MANIFEST,
        config=config,
        layers=[*layers] if layer is None else [*layers, layer.descriptor],
    )
    raw = model.encode(manifest)
    descriptor = Descriptor(media_type=media.OCI_MANIFEST, digest=blobs.put_bytes(store, raw), size=len(raw))
    index.add(store, descriptor, ref)
    return config.digest


def _history_of(parent: Image, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parent's history with a step for each of its layers, and none too many, so that a step that is
    added goes with the layer that is added.
    """
    without = len(parent.manifest.layers) - sum(not entry.get("empty_layer") for entry in entries)
    if without >= 0:
        return [*entries, *[{"created": parent.created} if parent.created else {}] * without]
    made = [at for at, entry in enumerate(entries) if not entry.get("empty_layer")]
    needless = {*made[without:]}
    return [{**entry, "empty_layer": True} if at in needless else entry for at, entry in enumerate(entries)]


def _history_entry(step: HistoryDetails, *, empty: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"created": step.created}
    for key in ("author", "created_by", "comment"):
        if value := getattr(step, key):
            entry[key] = value
    if empty:
        entry["empty_layer"] = True
    return entry
