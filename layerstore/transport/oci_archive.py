"""The OCI image layout inside an archive: read its complete images, and write one.

Manifests are kept byte for byte in both directions, and so are digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from layerstore import media, model, reference
from layerstore.errors import (
    InvalidDigest,
    InvalidImage,
    InvalidReference,
    LayerstoreError,
    NotFound,
    UnsupportedMedia,
)
from layerstore.image import find, platforms
from layerstore.image import image as images
from layerstore.model import Descriptor, Index
from layerstore.reference import Reference
from layerstore.store import blobs, index
from layerstore.store.store import Store
from layerstore.transport.archive import Archive

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Packed:
    """An image in an archive: its manifest or index, and its names there."""

    entry: Descriptor
    names: tuple[str, ...]


class Layout(NamedTuple):
    """The images in an archive's layout; and other entries, by name or digest, with their kind."""

    images: list[Packed]
    left_out: list[tuple[str, UnsupportedMedia]]


def packed(archive: Archive) -> Layout | None:
    """Return the images of the layout, each once and complete; None when the archive has no layout."""
    raw = archive.document("index.json", is_index_file=True)
    if raw is None:
        return None
    _check_layout(archive.document("oci-layout"))
    entries: dict[str, Descriptor] = {}
    found: dict[str, list[str]] = {}
    for entry in model.parse_index(raw, is_index_file=True).manifests:
        known = entries.setdefault(entry.digest, entry)
        if (known.size, known.media_type) != (entry.size, entry.media_type):
            raise InvalidImage(f"invalid archive: {entry.digest} has two different descriptors")
        annotations = entry.annotations or {}
        # docker and containerd write only the tag in the one, and the whole name in the other.
        name = annotations.get(index.FULL_NAME) or annotations.get(index.REF_NAME)
        found.setdefault(entry.digest, []).extend([name] if name else [])
    layout = Layout([], [])
    for digest, entry in entries.items():
        names = tuple(dict.fromkeys(found[digest]))
        try:
            _check_whole(archive.store, entry)
        except UnsupportedMedia as error:
            layout.left_out.append((names[0] if names else digest, error))
        else:
            layout.images.append(Packed(_plain(entry), names))
    return layout


def _check_whole(store: Store, entry: Descriptor) -> None:
    """Raise unless the image is complete in the store; of an index, at least one of its images."""
    whole = False
    for manifest in manifests(store, entry):
        image = images.load(store, manifest)
        for layer in image.manifest.layers:
            if not blobs.is_present(store, layer):
                raise NotFound(f"invalid archive: blob {layer.digest} of image {entry.digest} is missing")
        whole = True
    if not whole:
        raise without_image(store, entry)


def without_image(store: Store, entry: Descriptor) -> LayerstoreError:
    """Return the error for an index without an image in the store: it lists none, or they are missing."""
    listed = (leaf.entry for leaf in find.leaves(store, entry))
    if any(platforms.may_be_image(one) and not blobs.is_present(store, one) for one in listed):
        return NotFound(f"none of the images of {entry.digest} is present")
    return UnsupportedMedia(f"{entry.digest} is not an image but an index without one")


def manifests(store: Store, entry: Descriptor) -> Iterator[Descriptor]:
    """Return the images of an entry that are in the store: of an index, some may have been left out."""
    for one in documents(store, entry):
        if one.media_type in media.MANIFESTS and (one is entry or _is_image(store, one)):
            yield one


def documents(store: Store, entry: Descriptor) -> Iterator[Descriptor]:
    """Return the manifest, or the index with all indexes and manifests below it that are in the store."""
    if entry.media_type not in media.INDEXES | media.MANIFESTS:
        raise UnsupportedMedia(f"invalid manifest: {entry.digest} is not an image but {entry.media_type}")
    yield from _documents(store, entry, 0)


def _documents(store: Store, entry: Descriptor, depth: int) -> Iterator[Descriptor]:
    if depth > _MAX_DEPTH:
        raise InvalidImage(f"{entry.digest}: indexes are nested more than {_MAX_DEPTH} deep")
    yield entry
    if entry.media_type in media.INDEXES:
        for nested in model.parse_index(blobs.read_blob(store, entry), entry.media_type).manifests:
            known = nested.media_type in media.INDEXES | media.MANIFESTS
            if known and blobs.is_present(store, nested):
                yield from _documents(store, nested, depth + 1)


def reference_of(name: str) -> Reference | None:
    """Return a name in an archive as docker shows it (without ``docker.io/library/``); None if it is
    invalid.
    """
    try:
        ref = reference.parse(name)
    except (InvalidReference, InvalidDigest):
        return None
    if ref.digest is not None:
        return None
    if ref.domain in {"docker.io", "index.docker.io"}:
        ref = Reference(None, ref.path.removeprefix("library/"), ref.tag)
    return ref


def index_document(entries: Iterable[tuple[Descriptor, Sequence[Reference]]], *, tag_only: bool) -> bytes:
    """Return ``index.json`` of an archive; `tag_only`: with the tag alone as ref.name, as docker does."""
    listed: list[Descriptor] = []
    for entry, refs in entries:
        for ref in refs:
            short = str(ref.tag) if tag_only else str(ref)
            annotations = {index.REF_NAME: short, index.FULL_NAME: ref.canonical}
            listed.append(msgspec.structs.replace(entry, annotations=annotations))
        if not refs:
            listed.append(entry)
    return model.encode(Index(schema_version=2, media_type=media.OCI_INDEX, manifests=listed))


def _is_image(store: Store, entry: Descriptor) -> bool:
    """Whether an entry of an index is an image: it may also list attestations and the like."""
    try:
        manifest = model.parse_manifest(blobs.read_blob(store, entry), entry.media_type)
        images.check_is_image(manifest, entry.digest)
    except UnsupportedMedia:
        return False
    return True


def _plain(entry: Descriptor) -> Descriptor:
    left = {k: v for k, v in (entry.annotations or {}).items() if k not in {index.REF_NAME, index.FULL_NAME}}
    return msgspec.structs.replace(entry, annotations=left or None)


def _check_layout(raw: bytes | None) -> None:
    if raw is None:
        raise InvalidImage("invalid archive: it has an index.json, but no oci-layout")
    version = model.parse_document(raw).get("imageLayoutVersion")
    if not isinstance(version, str) or version.split(".")[0] != "1":
        raise UnsupportedMedia(f"invalid archive: unsupported image layout version {version!r}")
