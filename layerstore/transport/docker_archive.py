"""The docker-archive: ``manifest.json`` of every docker from 1.10 on, read and written.

Before docker 25 an archive had no manifests, only configurations and uncompressed layers: the image ID stays
the same, and the manifest is made here, always the same one. Since 25 it also has an image layout, which
keeps the digests; this document and the layout must then describe the same images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from layerstore import limits, media, model
from layerstore.digest import Digest, Hasher
from layerstore.errors import DigestMismatch, InvalidImage, InvalidLayer
from layerstore.image import image as images
from layerstore.image.image import Image
from layerstore.layer.tar.decompress import LayerReader
from layerstore.media import Compression
from layerstore.model import Descriptor, ImageConfig
from layerstore.reference import Reference
from layerstore.store import blobs
from layerstore.transport import oci_archive
from layerstore.transport.archive import Archive
from layerstore.transport.oci_archive import Packed

_HEX_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_KEPT: dict[str, Compression] = {"none": "none", "gzip": "gzip", "zstd": "zstd"}


class ManifestItem(msgspec.Struct, frozen=True, rename="pascal"):
    """One image in ``manifest.json``: paths within the archive, layers bottom first."""

    config: str = ""
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    layer_sources: dict[str, Descriptor] | msgspec.UnsetType = msgspec.UNSET


def packed(archive: Archive, layout: Sequence[Packed]) -> list[Packed] | None:
    """Return the images of ``manifest.json``, complete; None without that file.

    An image that is also in `layout` is taken from there, with its digest.
    """
    raw = archive.document("manifest.json")
    if raw is None:
        return None
    try:
        items = model.parse_list(raw, ManifestItem, "document")
    except InvalidImage as error:
        raise InvalidImage(f"invalid archive: manifest.json: {error}") from None
    known: dict[Digest, Packed] = {}
    for one in layout:
        for manifest in oci_archive.manifests(archive.store, one.entry):
            known.setdefault(images.load(archive.store, manifest).id, one)
    found = [_packed_item(archive, item, known) for item in items]
    _check_agreement(found, layout)
    return found


def manifest_document(entries: Iterable[tuple[Image, Sequence[Reference]]]) -> bytes:
    """Return ``manifest.json`` for images whose blobs are in an image layout beside it, as docker 25 does."""
    return model.encode(
        [
            ManifestItem(
                config=_blob_path(image.id),
                repo_tags=[str(ref) for ref in refs],
                layers=[_blob_path(layer.digest) for layer, _ in image.layers],
                layer_sources={str(diff_id): _source(layer) for layer, diff_id in image.layers},
            )
            for image, refs in entries
        ]
    )


def repositories_document(entries: Iterable[tuple[Image, Sequence[Reference]]]) -> bytes:
    """Return ``repositories``, for docker before 1.10 and tools that expect it."""
    found: dict[str, dict[str, str]] = {}
    for image, refs in entries:
        for ref in refs if image.layers else ():
            found.setdefault(ref.repository, {})[str(ref.tag)] = image.layers[-1][0].digest.hex
    return model.encode(found)


def _packed_item(archive: Archive, item: ManifestItem, known: dict[Digest, Packed]) -> Packed:
    names = tuple(item.repo_tags or ())
    config = archive.file(item.config)
    promised = _HEX_NAME.fullmatch(item.config)
    if promised is not None and promised[1] != config.digest.hex:
        raise DigestMismatch(f"invalid archive: the digest of {promised[0][:200]} is {config.digest}")
    if config.digest in known:
        return Packed(known[config.digest].entry, names)
    parsed = model.parse_config(blobs.read_blob(archive.store, config))
    manifest = model.Manifest(
        schema_version=2,
        media_type=media.OCI_MANIFEST,
        config=msgspec.structs.replace(config, media_type=media.OCI_CONFIG),
        layers=_layers(archive, item, config, parsed),
    )
    raw = model.encode(manifest)
    entry = Descriptor(media_type=media.OCI_MANIFEST, digest=Digest.of(raw), size=len(raw))
    if not blobs.is_present(archive.store, entry):
        blobs.put_bytes(archive.store, raw)
        archive.added.add(entry.digest)
    return Packed(entry, names)


def _layers(
    archive: Archive, item: ManifestItem, config: Descriptor, parsed: ImageConfig
) -> list[Descriptor]:
    paths, diff_ids = item.layers or [], parsed.rootfs.diff_ids
    if len(paths) != len(diff_ids):
        raise InvalidImage(
            f"invalid archive: image {config.digest} has {len(paths)} layers, but {len(diff_ids)} diffIDs"
        )
    return [
        _layer(archive, archive.file(path), diff_id) for path, diff_id in zip(paths, diff_ids, strict=True)
    ]


def _layer(archive: Archive, found: Descriptor, diff_id: Digest) -> Descriptor:
    """Return a layer's descriptor for the manifest; a layer that no media type describes is stored
    uncompressed.
    """
    with blobs.open_blob(archive.store, found) as stream:
        compression = LayerReader(stream, limits.current()).compression
    digest = found.digest if compression == "none" else _digest_inside(archive, found)
    if digest != diff_id:
        raise DigestMismatch(f"invalid archive: a layer's diffID is {digest} instead of {diff_id}")
    if compression in _KEPT:
        return msgspec.structs.replace(found, media_type=media.layer_type(_KEPT[compression]))
    return _decompressed(archive, found)


def _digest_inside(archive: Archive, found: Descriptor) -> Digest:
    hasher = Hasher()
    try:
        with blobs.open_blob(archive.store, found) as stream:
            for piece in LayerReader(stream, limits.current()).pieces():
                hasher.update(piece)
    except InvalidLayer as error:
        raise InvalidImage(f"invalid archive: {error}") from None
    return hasher.digest()


def _decompressed(archive: Archive, found: Descriptor) -> Descriptor:
    hasher = Hasher()
    with blobs.open_blob(archive.store, found) as stream, blobs.new_blob(archive.store) as blob:
        for piece in LayerReader(stream, limits.current()).pieces():
            hasher.update(piece)
            blob.write(piece)
        blob.publish(hasher.digest(), hasher.size)
    archive.added.add(hasher.digest())
    return Descriptor(media_type=media.OCI_LAYER, digest=hasher.digest(), size=hasher.size)


def _check_agreement(found: Sequence[Packed], layout: Sequence[Packed]) -> None:
    """Raise InvalidImage if the two documents give one name to different images."""
    meant: dict[str, Digest] = {}
    for one in (*layout, *found):
        for name in one.names:
            ref = oci_archive.reference_of(name)
            if ref is not None and meant.setdefault(str(ref), one.entry.digest) != one.entry.digest:
                raise InvalidImage(f"invalid archive: {ref} names two different images in it")


def _source(layer: Descriptor) -> Descriptor:
    return Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)


def _blob_path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"
