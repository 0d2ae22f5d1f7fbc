"""``index.json``: the manifests that the store holds, and their names.

A name is the annotation ``org.opencontainers.image.ref.name`` (skopeo's and umoci's way), holding repository
and tag as docker shows them: ``skopeo inspect oci:ROOT/oci:debian:latest``. containerd's full name is in a
second annotation. An image whose name was given to another stays, without a name, until it is removed. For
manifests of docker's types the name is at another entry of the file (`twins`); this module hides that.

An image that was pulled from the registry of its name, or pushed there, has containerd's label
``containerd.io/distribution.source.HOST=REPOSITORY``. As in docker, only such an image has a repository
digest.
"""

from collections.abc import Callable, Mapping

import msgspec

from layerstore import limits, media, model, reference
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.model import Descriptor, Index
from layerstore.reference import Reference
from layerstore.store import durable, twins
from layerstore.store.store import Store

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
_SOURCE = "containerd.io/distribution.source."

Entries = list[Descriptor]


def name_of(entry: Descriptor) -> str | None:
    """Return the name of an entry, None for one without a name."""
    return (entry.annotations or {}).get(REF_NAME)


def read(store: Store) -> Index:
    """Return the index as it is now; LayerstoreError for a symbolic link in its place."""
    stored = _stored(store)
    return msgspec.structs.replace(stored, manifests=twins.shown(stored.manifests))


def all_stored(store: Store) -> Entries:
    """Return every entry of the file, including twins of docker's manifests."""
    return _stored(store).manifests


def _stored(store: Store) -> Index:
    if not store.is_there:
        return Index(schema_version=2, manifests=[])
    return model.parse_index(raw(store), is_index_file=True)


def raw(store: Store) -> bytes:
    """Return the index as it is in the file."""
    return durable.read_capped(store.oci / "index.json", limits.current().max_index, "index")


def source_of(entry: Descriptor) -> str | None:
    """Return the repository of the entry's name, if its registry is known to have had the manifest."""
    name = name_of(entry)
    try:
        ref = reference.parse(name) if name else None
    except LayerstoreError:
        return None  # a name from another tool
    if ref is None or not _source(ref).items() <= (entry.annotations or {}).items():
        return None
    return ref.repository


def add(store: Store, manifest: Descriptor, ref: Reference | None, *, in_registry: bool = False) -> None:
    """Add a manifest under a name, which another image loses, or without a name. Idempotent.

    `in_registry`: the registry has it in the repository of that name.
    """
    new = twins.made(store, manifest)
    _update(store, lambda entries: _added(entries, manifest, ref, in_registry=in_registry), new)


def mark_sources(store: Store, digest: Digest, ref: Reference, *, in_registry: bool) -> None:
    """Record that the registry has a manifest in the repository of `ref`, or remove that record, for all its
    names of that repository.
    """

    def marked(entry: Descriptor) -> Descriptor:
        if entry.digest != digest or not _is_of(entry, ref):
            return entry
        kept = _without_sources(entry.annotations or {})
        return msgspec.structs.replace(entry, annotations={**kept, **(_source(ref) if in_registry else {})})

    _update(store, lambda entries: [marked(entry) for entry in entries])


def remove_name(store: Store, name: str) -> None:
    """Remove a name and its entry."""
    _update(store, lambda entries: [entry for entry in entries if name_of(entry) != name])


def remove(store: Store, digest: Digest) -> None:
    """Remove a manifest under all its names."""
    _update(store, lambda entries: [entry for entry in entries if entry.digest != digest])


def _update(
    store: Store, change: Callable[[Entries], Entries], new: Mapping[Digest, Descriptor] | None = None
) -> None:
    """Write the changed entries; `new` are twins to add."""
    with store.locked():
        index = _stored(store)
        entries = change(twins.shown(index.manifests))
        stored = twins.written(entries, {**twins.known(index.manifests), **(new or {})})
        if stored != index.manifests:
            changed = msgspec.structs.replace(index, media_type=media.OCI_INDEX, manifests=stored)
            durable.replace_file(store.oci / "index.json", model.encode(changed))


def _added(entries: Entries, manifest: Descriptor, ref: Reference | None, *, in_registry: bool) -> Entries:
    if ref is None:
        known = any(entry.digest == manifest.digest for entry in entries)
        return entries if known else [*entries, manifest]
    name = str(ref)
    kept: Entries = []
    for entry in entries:
        if entry.digest == manifest.digest and name_of(entry) in {None, name}:
            continue
        kept.append(_nameless(entry) if name_of(entry) == name else entry)
    own = _without_sources(manifest.annotations or {})
    same = [entry for entry in entries if entry.digest == manifest.digest and _is_of(entry, ref)]
    source = _source(ref) if in_registry or any(map(source_of, same)) else {}
    annotations = {**own, REF_NAME: name, FULL_NAME: _full_name(ref), **source}
    named = msgspec.structs.replace(manifest, annotations=annotations)
    return [*_without_needless(kept), named]


def _full_name(ref: Reference) -> str:
    """Return containerd's name of an image: with the digest if it was pulled by digest."""
    return ref.canonical if ref.digest is None else f"{ref.canonical}@{ref.digest}"


def _source(ref: Reference) -> dict[str, str]:
    """Return the annotation that records that a registry has a manifest in the repository of `ref`."""
    domain, _, path = ref.full_repository.partition("/")
    return {f"{_SOURCE}{domain}": path}


def _is_of(entry: Descriptor, ref: Reference) -> bool:
    """Whether an entry's name is in the repository of `ref`."""
    try:
        return _source(reference.parse(name_of(entry) or "")) == _source(ref)
    except LayerstoreError:
        return False


def _without_sources(annotations: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if not key.startswith(_SOURCE)}


def _nameless(entry: Descriptor) -> Descriptor:
    kept = _without_sources(entry.annotations or {})
    left = {key: value for key, value in kept.items() if key not in {REF_NAME, FULL_NAME}}
    return msgspec.structs.replace(entry, annotations=left or None)


def _without_needless(entries: Entries) -> Entries:
    """Drop entries without a name of manifests that also have a name."""
    named = {entry.digest for entry in entries if name_of(entry) is not None}
    return [entry for entry in entries if name_of(entry) is not None or entry.digest not in named]
