"""``images`` and ``history``."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from layerstore import reference
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.image import filters as image_filters
from layerstore.image import find, human, platforms
from layerstore.image.find import Found
from layerstore.verbs.setting import Note, Root, noting, open_store


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``images``: an image under one of its names, or a nameless one."""

    repository: str | None
    tag: str | None
    id: Digest
    digest: Digest  # of the manifest, or of the index for several platforms
    created: str | None
    size: int  # in the store, compressed


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``history``."""

    id: Digest | None  # of the image itself on its newest step
    created: str | None
    created_by: str
    size: int
    comment: str


def images(
    pattern: str | None = None,
    *,
    filters: Sequence[str] = (),
    root: Root = None,
    note: Note | None = None,
) -> list[ImageSummary]:
    """All images, newest first; `pattern` is ``REPOSITORY[:TAG]`` with ``*`` and ``?``.

    `filters` are docker's: ``dangling=true``, ``label=KEY[=VALUE]``, ``before=IMAGE`` and so on.

    An image that cannot be read is told to `note` and left out.
    """
    store = open_store(root)
    wanted = [*filters, *([] if pattern is None else [f"reference={pattern}"])]
    test = image_filters.parse(wanted, image_filters.LISTED, store)
    broken: list[LayerstoreError] = []
    found = find.all_images(store, broken)
    for error in broken:
        noting(note)(str(error))
    lines = [line for one in found for line in _summaries(one, test)]
    return sorted(lines, key=_newest_first)


def history(image: str, *, platform: str | None = None, root: Root = None) -> list[Step]:
    """The steps that made an image, newest first."""
    found = find.find(open_store(root), image, platforms.parse_optional(platform))
    steps = [
        Step(
            id=None,
            created=step.created,
            created_by=step.created_by,
            size=0 if layer is None else layer.size,
            comment=step.comment,
        )
        for step, layer in found.image.steps()
    ]
    steps.reverse()
    if steps:
        steps[0] = msgspec.structs.replace(steps[0], id=found.image.id)
    return steps


def _summaries(found: Found, test: image_filters.Test) -> Iterator[ImageSummary]:
    image = found.image
    names: list[str | None] = [*sorted(found.names)]
    for name in names or [None]:
        if not test(found, name):
            continue
        repository, tag = (None, None) if name is None else _split(name)
        yield ImageSummary(
            repository=repository,
            tag=tag,
            id=image.id,
            digest=found.entry.digest,
            created=image.created,
            size=image.size,
        )


def _split(name: str) -> tuple[str | None, str | None]:
    """Repository and tag of a name in ``index.json``; other tools write a tag alone there."""
    try:
        ref = reference.parse(name)
    except LayerstoreError:
        return None, name
    return (ref.repository, ref.tag) if str(ref) == name else (None, name)


def _newest_first(line: ImageSummary) -> tuple[float, str, str]:
    when = human.parse_time(line.created) or datetime.fromtimestamp(0, UTC)
    return -when.timestamp(), line.repository or "", line.tag or ""
