"""Which image a word means: a reference, an image ID, or a unique prefix of one."""

import re
from functools import partial
from typing import NamedTuple

import msgspec

from layerstore import media, reference
from layerstore.digest import Digest
from layerstore.errors import InvalidDigest, InvalidReference, LayerstoreError, NotFound, UnsupportedMedia
from layerstore.image import indexes, platforms
from layerstore.image.image import Image, load
from layerstore.image.indexes import Leaf
from layerstore.model import Descriptor, Platform
from layerstore.store import blobs, index
from layerstore.store.store import Store


class Found(NamedTuple):
    """An image, its entry in ``index.json`` and all the names it has there.

    The entry of an image for several platforms is that of their index; `image` is this machine's, or the one
    that was asked for.
    """

    image: Image
    entry: Descriptor
    names: tuple[str, ...]


def all_images(store: Store, broken: list[LayerstoreError] | None = None) -> list[Found]:
    """Every image of the store, each once; what cannot be read goes to `broken` (raised when there is
    none).
    """
    names: dict[Digest, list[str]] = {}
    descriptors: dict[Digest, Descriptor] = {}
    for entry in index.read(store).manifests:
        descriptors.setdefault(entry.digest, entry)
        if name := index.name_of(entry):
            names.setdefault(entry.digest, []).append(name)
    found: list[Found] = []
    for digest, entry in descriptors.items():
        try:
            found.append(Found(image_of(store, entry), entry, tuple(names.get(digest, ()))))
        except LayerstoreError as error:
            if broken is None:
                raise
            broken.append(error)
    return found


def find(store: Store, word: str, wanted: Platform | None = None) -> Found:
    """The image `word` means, by docker's order: whole ID, reference, prefix of an ID. NotFound otherwise.

    Of an image for several platforms it is the one `wanted`, by default this machine's.
    """
    by_name = None if word.startswith("sha256:") else _by_reference(store, word, wanted)
    if by_name is not None:
        return by_name
    prefix = word.removeprefix("sha256:")
    if re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        found = _by_prefix(store, word, prefix)
        if found is not None:
            return found if wanted is None else _for_platform(store, found, wanted, word)
    raise NotFound(f"no such image: {word}")


def _by_prefix(store: Store, word: str, prefix: str) -> Found | None:
    matching = {f.image.id: f for f in all_images(store, []) if f.image.id.hex.startswith(prefix)}
    if len(matching) > 1:
        raise InvalidReference(f"{word} is ambiguous: {len(matching)} images have IDs that start so")
    return next(iter(matching.values()), None)


def _by_reference(store: Store, word: str, wanted: Platform | None) -> Found | None:
    entries = index.read(store).manifests
    entry = next((entry for entry in entries if index.name_of(entry) == word), None)
    if entry is None:
        try:
            ref = reference.parse(word)
        except (InvalidReference, InvalidDigest):
            if re.fullmatch(r"[0-9a-f]{64}", word):
                return None  # an ID, which cannot be a name
            raise
        entry = next((entry for entry in entries if _matches(entry, ref)), None)
    if entry is None:
        return None
    names = tuple(n for e in entries if e.digest == entry.digest and (n := index.name_of(e)))
    if wanted is None:
        return Found(image_of(store, entry), entry, names)
    return Found(of_platform(store, entry, wanted, word), entry, names)


def _matches(entry: Descriptor, ref: reference.Reference) -> bool:
    """By name, in the short or the full form, or by digest (of an image that has that repository's name)."""
    name = index.name_of(entry)
    if name is None:
        return False
    try:
        own = reference.parse(name)
    except LayerstoreError:
        return False
    if ref.digest is not None:
        return entry.digest == ref.digest and own.repository == ref.repository
    return own.canonical == ref.canonical


def image_of(store: Store, entry: Descriptor) -> Image:
    """The image an entry of ``index.json`` leads to: of several this machine's, else another that is here."""
    if entry.media_type not in media.INDEXES:
        return load(store, entry)
    found, says, host = _leaves(store, entry), partial(_says, store), platforms.host()
    here = [leaf for leaf in found if blobs.is_present(store, leaf.entry)]
    try:
        chosen = indexes.choose(here, host, entry.digest, says).entry
    except (NotFound, UnsupportedMedia):
        other = next((leaf.entry for leaf in here if says(leaf.entry) is not None), None)
        chosen = other or indexes.choose(found, host, entry.digest, says).entry
    return load(store, chosen)


def _leaves(store: Store, top: Descriptor, wanted: Platform | None = None) -> list[Leaf]:
    """The manifests an index leads to, as far as its indexes are in the store."""

    def read(index: Descriptor) -> bytes | None:
        if index.digest != top.digest and not blobs.is_present(store, index):
            return None
        return blobs.read_blob(store, index)

    return indexes.leaves(top, read, wanted)


def _says(store: Store, manifest: Descriptor) -> Platform | None:
    """What an image says it is for; None for what is none, or not here."""
    try:
        return platforms.of_config(load(store, manifest).config)
    except LayerstoreError:
        return None


def _for_platform(store: Store, found: Found, wanted: Platform, word: str) -> Found:
    return Found(of_platform(store, found.entry, wanted, word), found.entry, found.names)


def of_platform(store: Store, entry: Descriptor, wanted: Platform, word: str) -> Image:
    """The image for a platform that an entry of ``index.json`` leads to; it must be in the store. NotFound
    says what else there is.
    """
    if entry.media_type not in media.INDEXES:
        image = load(store, entry)
        said = msgspec.structs.replace(entry, platform=platforms.of_config(image.config))
        platforms.choose([said], wanted, word)
        return image
    chosen = indexes.choose(_leaves(store, entry, wanted), wanted, word, partial(_says, store)).entry
    if not blobs.is_present(store, chosen):
        raise NotFound(
            f"the image of {word} for {platforms.shown(wanted)} is not in the store: pull it first"
        )
    return load(store, chosen)
