"""Which image a word means: a reference, an image ID, or a unique prefix of one."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from layerstore import media, reference
from layerstore.digest import Digest
from layerstore.errors import InvalidDigest, InvalidReference, LayerstoreError, NotFound, UnsupportedMedia
from layerstore.image import indexes, platforms
from layerstore.image.image import Image, load
from layerstore.image.indexes import ListedManifest
from layerstore.model import Descriptor, Platform
from layerstore.store import blobs, index
from layerstore.store.store import Store


class FoundImage(NamedTuple):
    """An image, its entry in ``index.json``, all the names it has there, and those by digest
    (``REPOSITORY@DIGEST``) that registries know it under.

    The entry of an image for several platforms is that of their index; `image` is this machine's, or the one
    that was asked for.
    """

    image: Image
    entry: Descriptor
    names: tuple[str, ...]
    digests: tuple[str, ...] = ()


def all_images(store: Store, broken: list[LayerstoreError] | None = None) -> list[FoundImage]:
    """Every image of the store, each once; what cannot be read goes to `broken` (raised when there is
    none).
    """
    entries: dict[Digest, list[Descriptor]] = {}
    for entry in index.read(store).manifests:
        entries.setdefault(entry.digest, []).append(entry)
    found: list[FoundImage] = []
    for same in entries.values():
        try:
            found.append(_found(image_of(store, same[0]), same[0], same))
        except LayerstoreError as error:
            if broken is None:
                raise
            broken.append(error)
    return found


def readable(store: Store) -> tuple[FoundImage, ...]:
    """All images that can be read, for who only shows them: read anew when the index has changed."""
    return _readable(store, index.raw(store))


@lru_cache(maxsize=1)  # `inspect` of many images asks for each of them
def _readable(store: Store, raw_index: bytes) -> tuple[FoundImage, ...]:
    return tuple(all_images(store, []))


def with_id(store: Store, image_id: Digest) -> list[FoundImage]:
    """Everything in the store that is the image of that ID. One image may have several manifests: its layers
    compressed in another way, docker's media types instead of OCI's, an index around it.
    """
    return [found for found in all_images(store, []) if found.image.id == image_id]


def _found(image: Image, entry: Descriptor, same: list[Descriptor]) -> FoundImage:
    """An image with what the entries of its manifest call it."""
    names = tuple(name for one in same if (name := index.name_of(one)))
    digests = dict.fromkeys(f"{source}@{entry.digest}" for one in same if (source := index.source_of(one)))
    return FoundImage(image, entry, names, tuple(digests))


def find(store: Store, word: str, wanted: Platform | None = None) -> FoundImage:
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


def images_among(store: Store, names: Iterable[str], note: Callable[[str], None]) -> Iterator[str]:
    """Yield the names of images; `note` gets a line for each name of what another tool put there."""
    for name in names:
        try:
            find(store, name)
        except UnsupportedMedia as error:
            note(f"{name} is left out: {error}")
        except LayerstoreError:
            yield name  # whatever uses a damaged image reports what is wrong with it
        else:
            yield name


def _by_prefix(store: Store, word: str, prefix: str) -> FoundImage | None:
    named_last = sorted(all_images(store, []), key=lambda found: bool(found.names))
    matching = {found.image.id: found for found in named_last if found.image.id.hex.startswith(prefix)}
    if len(matching) > 1:
        raise InvalidReference(f"{word} is ambiguous: {len(matching)} images have IDs that start so")
    return next(iter(matching.values()), None)


def _by_reference(store: Store, word: str, wanted: Platform | None) -> FoundImage | None:
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
    image = image_of(store, entry) if wanted is None else of_platform(store, entry, wanted, word)
    return _found(image, entry, [one for one in entries if one.digest == entry.digest])


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
    found, says, host = leaves(store, entry), partial(_says, store), platforms.host()
    here = [leaf for leaf in found if blobs.is_present(store, leaf.entry)]
    try:
        chosen = indexes.choose(here, host, entry.digest, says).entry
    except (NotFound, UnsupportedMedia):
        other = next((leaf.entry for leaf in here if says(leaf.entry) is not None), None)
        chosen = other or indexes.choose(found, host, entry.digest, says).entry
    return load(store, chosen)


def leaves(store: Store, top: Descriptor, wanted: Platform | None = None) -> list[ListedManifest]:
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


def _for_platform(store: Store, found: FoundImage, wanted: Platform, word: str) -> FoundImage:
    return found._replace(image=of_platform(store, found.entry, wanted, word))


def of_platform(store: Store, entry: Descriptor, wanted: Platform, word: str) -> Image:
    """The image for a platform that an entry of ``index.json`` leads to; it must be in the store. NotFound
    says what else there is.
    """
    if entry.media_type not in media.INDEXES:
        image = load(store, entry)
        said = msgspec.structs.replace(entry, platform=platforms.of_config(image.config))
        platforms.choose([said], wanted, word)
        return image
    chosen = indexes.choose(leaves(store, entry, wanted), wanted, word, partial(_says, store)).entry
    if not blobs.is_present(store, chosen):
        raise NotFound(
            f"the image of {word} for {platforms.shown(wanted)} is not in the store: pull it first"
        )
    return load(store, chosen)
