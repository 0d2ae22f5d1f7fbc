"""``images`` and ``history``: the images of the store, and the steps that made one."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import msgspec

from layerstore import reference
from layerstore.callbacks import Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.image import filters as image_filters
from layerstore.image import find, human, lineage, platforms
from layerstore.image import sizes as measured
from layerstore.image.find import FoundImage
from layerstore.image.image import Image
from layerstore.store.opening import RootPath, open_store


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``images``: an image under one of its names, or a nameless one."""

    repository: str | None
    tag: str | None
    id: Digest
    digest: Digest  # of the manifest, or of the index for several platforms
    in_registry: bool  # whether its registry has it under that digest
    created: str | None
    size: int | None  # unpacked; None when not requested
    compressed_size: int  # in the store


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``history``."""

    id: Digest | None  # of the image as it was after this step, if the store has that
    created: str | None
    created_by: str
    size: int  # of the step's layer, unpacked
    compressed_size: int
    comment: str


def images(
    pattern: str | None = None,
    *,
    filters: Sequence[str] = (),
    sizes: bool = True,
    root: RootPath = None,
    note: Note | None = None,
) -> list[ImageSummary]:
    """Return all images, newest first; `pattern` is ``REPOSITORY[:TAG]`` with ``*`` and ``?``.

    `filters` are docker's: ``dangling=true``, ``label=KEY[=VALUE]``, ``before=IMAGE`` and so on. `sizes`
    reads each layer once to learn its unpacked size, and stores that. An image that cannot be read is noted
    and left out.
    """
    store = open_store(root)
    wanted = [*filters, *([] if pattern is None else [f"reference={pattern}"])]
    test = image_filters.parse(wanted, image_filters.LISTED, store)
    broken: list[LayerstoreError] = []
    found = find.all_images(store, broken)
    for error in broken:
        note_or_log(note)(str(error))
    size = partial(measured.of_image, store) if sizes else None
    lines = [line for one in _once(found) for line in _summaries(one, test, size)]
    return sorted(lines, key=_newest_first)


def history(image: str, *, platform: str | None = None, root: RootPath = None) -> list[HistoryLine]:
    """Return the steps that made an image, newest first."""
    store = open_store(root)
    found = find.find(store, image, platforms.parse_optional(platform)).image
    made = list(found.steps())
    known = {**lineage.ancestors(store, found), len(made): found.id}
    steps = [
        HistoryLine(
            id=known.get(number),
            created=step.created,
            created_by=step.created_by,
            size=0 if layer is None else measured.of_layer(store, layer),
            compressed_size=0 if layer is None else layer.size,
            comment=step.comment,
        )
        for number, (step, layer) in enumerate(made, 1)
    ]
    return steps[::-1]


def _once(found: Sequence[FoundImage]) -> Iterator[FoundImage]:
    """Yield every image once per name; a nameless manifest only when its image has no name at all."""
    shown = {one.image.id for one in found if one.names}
    for one in found:
        if one.names or one.image.id not in shown:
            shown.add(one.image.id)
            yield one


def _summaries(
    found: FoundImage, test: image_filters.ImageTest, size: Callable[[Image], int] | None
) -> Iterator[ImageSummary]:
    image = found.image
    names: list[str | None] = [*sorted(found.names)]
    known = {digest.partition("@")[0] for digest in found.digests}
    for name in names or [None]:
        if not test(found, name):
            continue
        repository, tag = (None, None) if name is None else _split(name)
        yield ImageSummary(
            repository=repository,
            tag=tag,
            id=image.id,
            digest=found.entry.digest,
            in_registry=repository in known,
            created=image.created,
            size=None if size is None else size(image),
            compressed_size=image.size,
        )


def _split(name: str) -> tuple[str | None, str | None]:
    """Split a name of ``index.json`` into repository and tag; other tools write only a tag there."""
    try:
        ref = reference.parse(name)
    except LayerstoreError:
        return None, name
    return (ref.repository, ref.tag) if str(ref) == name else (None, name)


def _newest_first(line: ImageSummary) -> tuple[float, str, str]:
    when = human.parse_time(line.created) or datetime.fromtimestamp(0, UTC)
    return -when.timestamp(), line.repository or "", line.tag or ""
