"""What an index leads to, through indexes within it, and which of its images is for a platform.

The caller passes a `ReadIndex` and a `PlatformOf` that get the documents from a registry or from the store,
so every verb chooses by the same rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from layerstore import media, model
from layerstore.errors import InvalidImage, UnsupportedMedia
from layerstore.image import platforms
from layerstore.model import Descriptor, Platform

_MAX_DEPTH = 4
_MAX_INDEXES = 100  # of one image; each may be a request
_MAX_ASKED = 32  # manifests without a platform

ReadIndex = Callable[[Descriptor], bytes | None]  # an index's bytes; None: it is not there
PlatformOf = Callable[[Descriptor], Platform | None]  # what an image says itself; None: it is no image


class ListedManifest(NamedTuple):
    """A manifest, and the indexes within the first one that lead to it, outermost first."""

    entry: Descriptor  # a platform said of an index around it is said of it too
    through: tuple[Descriptor, ...] = ()


def leaves(top: Descriptor, read: ReadIndex, wanted: Platform | None = None) -> list[ListedManifest]:
    """All manifests an index leads to, in its order; with `wanted` not those in indexes for other platforms.

    InvalidImage for indexes without end.
    """
    count = itertools.count(1)

    def counted(index: Descriptor) -> bytes | None:
        if next(count) > _MAX_INDEXES:
            raise InvalidImage(f"{top.digest}: the index leads to more than {_MAX_INDEXES} others")
        return read(index)

    return list(_below(top, counted, wanted, ()))


def choose(found: Sequence[ListedManifest], wanted: Platform, what: str, says: PlatformOf) -> ListedManifest:
    """The image for a platform, as `platforms.choose`; one that the index gives no platform is asked itself.

    OtherPlatforms when there is none for it; UnsupportedMedia when none of all is an image.
    """
    chosen = platforms.best((leaf.entry for leaf in found), wanted)
    if chosen is None:
        asked = _asked([leaf.entry for leaf in found if platforms.may_be_image(leaf.entry)], says)
        if not asked:
            raise UnsupportedMedia(_without_image(what, wanted, found))
        chosen = platforms.choose(asked, wanted, what)
    return next(leaf for leaf in found if leaf.entry.digest == chosen.digest)


def _below(
    index: Descriptor, read: ReadIndex, wanted: Platform | None, through: tuple[Descriptor, ...]
) -> Iterator[ListedManifest]:
    if len(through) >= _MAX_DEPTH:
        raise InvalidImage(f"{index.digest}: indexes are nested more than {_MAX_DEPTH} deep")
    raw = read(index)
    if raw is None:
        return
    for entry in model.parse_index(raw, index.media_type).manifests:
        said = platforms.said_by(entry) or platforms.said_by(index)
        known = msgspec.structs.replace(entry, platform=entry.platform if said is None else said)
        if entry.media_type not in media.INDEXES:
            yield ListedManifest(known, through)
        elif wanted is None or said is None or platforms.rank(said, wanted) is not None:
            yield from _below(known, read, wanted, (*through, entry))


def _asked(entries: Sequence[Descriptor], says: PlatformOf) -> list[Descriptor]:
    """Those that are images, each with the platform it has in the index or says itself."""
    silent = [entry for entry in entries if platforms.said_by(entry) is None]
    said = {entry.digest: says(entry) for entry in silent[:_MAX_ASKED]}
    return [
        entry if platforms.said_by(entry) else msgspec.structs.replace(entry, platform=said[entry.digest])
        for entry in entries
        if platforms.said_by(entry) or said.get(entry.digest)
    ]


def _without_image(what: str, wanted: Platform, found: Sequence[ListedManifest]) -> str:
    kinds = {leaf.entry.artifact_type for leaf in found} - {""}
    beside = f", but {', '.join(sorted(kinds))}" if kinds else ""
    return f"{what} has no image for {platforms.shown(wanted)}; it has none{beside}"
