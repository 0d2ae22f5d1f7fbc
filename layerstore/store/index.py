"""``index.json``: which manifests the store holds and what they are called.

A name is the annotation ``org.opencontainers.image.ref.name`` (skopeo's and umoci's way), holding repository
and tag as docker shows them: ``skopeo inspect oci:ROOT/oci:debian:latest``. containerd's full name stands
beside it. An image that lost its name to another stays, nameless, until it is removed.
"""

from collections.abc import Callable

import msgspec

from layerstore import limits, media, model
from layerstore.digest import Digest
from layerstore.model import Descriptor, Index
from layerstore.reference import Reference
from layerstore.store import durable
from layerstore.store.store import Store

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"

Entries = list[Descriptor]


def name_of(entry: Descriptor) -> str | None:
    """The name of an entry, None for a nameless one."""
    return (entry.annotations or {}).get(REF_NAME)


def read(store: Store) -> Index:
    """The index as it is now; a symbolic link in its place is refused."""
    raw = durable.read_capped(store.oci / "index.json", limits.current().max_index, "index")
    return model.parse_index(raw, is_index_file=True)


def add(store: Store, manifest: Descriptor, ref: Reference | None) -> None:
    """Enter a manifest under a name (taking the name from another image) or without one. Idempotent."""
    _update(store, lambda entries: _added(entries, manifest, ref))


def remove_name(store: Store, name: str) -> None:
    """Take a name away, and the entry with it."""
    _update(store, lambda entries: [entry for entry in entries if name_of(entry) != name])


def remove(store: Store, digest: Digest) -> None:
    """Take a manifest out under all its names."""
    _update(store, lambda entries: [entry for entry in entries if entry.digest != digest])


def _update(store: Store, change: Callable[[Entries], Entries]) -> None:
    with store.locked():
        index = read(store)
        entries = change(index.manifests)
        if entries != index.manifests:
            changed = msgspec.structs.replace(index, media_type=media.OCI_INDEX, manifests=entries)
            durable.replace_file(store.oci / "index.json", model.encode(changed))


def _added(entries: Entries, manifest: Descriptor, ref: Reference | None) -> Entries:
    if ref is None:
        known = any(entry.digest == manifest.digest for entry in entries)
        return entries if known else [*entries, manifest]
    name = str(ref)
    kept: Entries = []
    for entry in entries:
        if entry.digest == manifest.digest and name_of(entry) in {None, name}:
            continue
        kept.append(_nameless(entry) if name_of(entry) == name else entry)
    annotations = {**(manifest.annotations or {}), REF_NAME: name, FULL_NAME: _full_name(ref)}
    named = msgspec.structs.replace(manifest, annotations=annotations)
    return [*_without_needless(kept), named]


def _full_name(ref: Reference) -> str:
    """containerd's name for an image: with the digest when it was pulled by that."""
    return ref.canonical if ref.digest is None else f"{ref.canonical}@{ref.digest}"


def _nameless(entry: Descriptor) -> Descriptor:
    left = {
        key: value for key, value in (entry.annotations or {}).items() if key not in {REF_NAME, FULL_NAME}
    }
    return msgspec.structs.replace(entry, annotations=left or None)


def _without_needless(entries: Entries) -> Entries:
    """Drop nameless entries of manifests that have a name too."""
    named = {entry.digest for entry in entries if name_of(entry) is not None}
    return [entry for entry in entries if name_of(entry) is not None or entry.digest not in named]
