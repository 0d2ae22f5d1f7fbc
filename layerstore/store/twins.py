"""Docker's manifests, made readable by name for tools that know only OCI's media types.

skopeo and umoci find an image of a layout by its name only where the entry, the manifest and what it lists
have OCI's types. A manifest that a registry has under docker's types is kept byte for byte, and gets a twin:
an OCI manifest of the same configuration and layers. In ``index.json`` the twin has the name and an
annotation with the digest of docker's manifest, which has no name. Readers that use `index` see the name at
docker's manifest and no twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.model import Descriptor
from layerstore.store import blobs
from layerstore.store.store import Store

_STANDS_FOR = "layerstore.stands-for"  # docker's digest and its own: tools may copy the annotation
_MAX_DEPTH = 4


def shown(stored: Iterable[Descriptor]) -> list[Descriptor]:
    """Return the entries with the names at docker's manifests, without twins."""
    entries = list(stored)
    listed = {entry.digest: entry for entry in entries}
    meant = [None if (digest := _meant_by(entry)) is None else listed.get(digest) for entry in entries]
    named = {real.digest for real in meant if real is not None}
    found: list[Descriptor] = []
    for entry, real in zip(entries, meant, strict=True):
        if real is not None:
            found.append(msgspec.structs.replace(real, annotations=_own(entry)))
        elif entry.digest not in named or entry.annotations is not None:
            found.append(entry)
    return found


def known(stored: Iterable[Descriptor]) -> dict[Digest, Descriptor]:
    """Return the twins, by the digest of docker's manifest."""
    return {real: entry for entry in stored if (real := _meant_by(entry)) is not None}


def written(entries: Iterable[Descriptor], twins: Mapping[Digest, Descriptor]) -> list[Descriptor]:
    """Return the entries for ``index.json``, with these twins."""
    stored: list[Descriptor] = []
    bare: set[Digest] = set()
    for entry in entries:
        twin = twins.get(entry.digest)
        if twin is None or entry.annotations is None:
            stored.append(entry)
            continue
        if entry.digest not in bare:
            stored.append(msgspec.structs.replace(entry, annotations=None))
            bare.add(entry.digest)
        mark = {_STANDS_FOR: f"{entry.digest} {twin.digest}"}
        stored.append(msgspec.structs.replace(twin, annotations={**entry.annotations, **mark}))
    return stored


def made(store: Store, entry: Descriptor) -> dict[Digest, Descriptor]:
    """Make the twin of docker's manifest or index and put it into the store; empty where none can be made.

    Call with `Store.writing` held, as for any blob.
    """
    if entry.media_type == media.oci_name(entry.media_type):
        return {}
    try:
        twin = _twin(store, entry, 0)
    except LayerstoreError:
        return {}  # using it reports what is wrong
    return {} if twin is None else {entry.digest: twin}


def _meant_by(entry: Descriptor) -> Digest | None:
    """Return the digest of docker's manifest for a twin; None for other entries."""
    real, _, twin = (entry.annotations or {}).get(_STANDS_FOR, "").partition(" ")
    try:
        return Digest(real) if twin == entry.digest else None
    except LayerstoreError:
        return None


def _own(twin: Descriptor) -> dict[str, str]:
    return {key: value for key, value in (twin.annotations or {}).items() if key != _STANDS_FOR}


def _twin(store: Store, entry: Descriptor, depth: int) -> Descriptor | None:
    if entry.media_type == media.OCI_MANIFEST or depth > _MAX_DEPTH:
        return entry
    raw = blobs.read_blob(store, entry)
    document: model.Manifest | model.Index
    if entry.media_type in media.MANIFESTS:
        manifest = model.parse_manifest(raw, entry.media_type)
        document = msgspec.structs.replace(
            manifest,
            media_type=media.OCI_MANIFEST,
            config=_renamed(manifest.config),
            layers=[_renamed(layer) for layer in manifest.layers],
        )
    else:
        listed = model.parse_index(raw, entry.media_type)
        # Only what is here: umoci knows no platforms, and takes an index of one image for that.
        here = [one for one in listed.manifests if blobs.is_present(store, one)]
        twins = [twin for one in here if (twin := _twin(store, one, depth + 1)) is not None]
        document = msgspec.structs.replace(listed, media_type=media.OCI_INDEX, manifests=twins)
    raw = model.encode(document)
    made = Descriptor(
        media_type=document.media_type, digest=Digest.of(raw), size=len(raw), platform=entry.platform
    )
    if not blobs.is_present(store, made):
        blobs.put_bytes(store, raw)
    return made


def _renamed(descriptor: Descriptor) -> Descriptor:
    return msgspec.structs.replace(descriptor, media_type=media.oci_name(descriptor.media_type))
