"""Find the documents and images of a reference in a repository, before any blob is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidImage, NotFound, UnsupportedMedia
from layerstore.image import indexes, platforms
from layerstore.image.image import check_is_image
from layerstore.model import Descriptor, Manifest, Platform
from layerstore.transport.errors import MissingRemote
from layerstore.transport.registry import Fetched, Repository

_MAX_PLATFORMS = 256


@dataclass(frozen=True, slots=True)
class Resolved:
    """All documents to keep, with the one that gets the name first; the images, with the chosen one first;
    and the other entries of an index (attestations and the like).
    """

    documents: list[Fetched]
    images: list[Manifest]
    others: list[Manifest]


def resolve(repo: Repository, top: Fetched, wanted: Platform | None, *, all_platforms: bool) -> Resolved:
    """Return what to download of `top`: the image `wanted` without its index, or the index with this
    machine's image or all. UnsupportedMedia for anything but an image.
    """
    source = _Source(repo, top)
    if top.descriptor.media_type in media.MANIFESTS:
        manifest = _image_manifest(top)
        if wanted is not None:
            said = msgspec.structs.replace(top.descriptor, platform=source.says(top.descriptor))
            platforms.choose([said], wanted, repo.name)
        return Resolved([top], [manifest], [])
    if all_platforms:
        return _resolve_all(source, top, repo.name)
    platform = wanted or platforms.host()
    found = indexes.leaves(top.descriptor, source.read, platform)
    chosen = indexes.choose(found, platform, repo.name, source.says)
    document = source.fetch(chosen.entry)
    around = [] if wanted else [top, *map(source.fetch, chosen.through)]
    return Resolved([*around, document], [_image_manifest(document)], [])


def _resolve_all(source: _Source, top: Fetched, what: str) -> Resolved:
    found = indexes.leaves(top.descriptor, source.read)
    if len(found) > _MAX_PLATFORMS:
        raise InvalidImage(f"{what}: the index lists {len(found)} manifests, more than {_MAX_PLATFORMS}")
    manifests = {leaf.entry.digest: _parsed(source.fetch(leaf.entry)) for leaf in found}
    images = {digest: one for digest, one in manifests.items() if _is_image(one, digest)}
    if not images:
        raise UnsupportedMedia(f"{what}: none of the {len(found)} manifests in the index is an image")
    known = [leaf for leaf in found if leaf.entry.digest in images]
    try:
        first = indexes.choose(known, platforms.host(), what, source.says).entry.digest
    except NotFound:
        first = next(iter(images))
    others = [one for digest, one in manifests.items() if digest not in images]
    return Resolved([*source.fetched.values()], [images.pop(first), *images.values()], others)


class _Source:
    """Fetches documents of a repository, each once, `top` first."""

    def __init__(self, repo: Repository, top: Fetched) -> None:
        self._repo = repo
        self.fetched = {top.descriptor.digest: top}

    def fetch(self, entry: Descriptor) -> Fetched:
        if entry.digest not in self.fetched:
            self.fetched[entry.digest] = self._repo.manifest(entry.digest, entry)
        return self.fetched[entry.digest]

    def read(self, index: Descriptor) -> bytes:
        return self.fetch(index).raw

    def says(self, entry: Descriptor) -> Platform | None:
        """Return the platform in an image's configuration; None for anything but an image."""
        try:
            manifest = _image_manifest(self.fetch(entry))
            return platforms.of_config(model.parse_config(self._repo.document(manifest.config)))
        except (DigestMismatch, InvalidImage, MissingRemote, UnsupportedMedia):
            return None


def _parsed(document: Fetched) -> Manifest:
    return model.parse_manifest(document.raw, document.descriptor.media_type)


def _image_manifest(document: Fetched) -> Manifest:
    manifest = _parsed(document)
    check_is_image(manifest, document.descriptor.digest)
    return manifest


def _is_image(manifest: Manifest, digest: Digest) -> bool:
    try:
        check_is_image(manifest, digest)
    except UnsupportedMedia:
        return False
    return True
