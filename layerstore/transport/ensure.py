"""``--pull``: make sure that the store has an image before a verb uses it."""

from typing import Literal

from layerstore import reference
from layerstore.callbacks import Note, note_or_log
from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import find, platforms
from layerstore.image.find import FoundImage
from layerstore.store.opening import RootPath, open_store
from layerstore.transport.base import BlobReport, RegistryOptions, ignore

PullPolicy = Literal["always", "missing", "never"]


def ensure_image(
    image: str,
    policy: PullPolicy,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    root: RootPath = None,
    report: BlobReport = ignore,
    note: Note | None = None,
) -> None:
    """Make sure that the store has `image`, pulling it as `policy` says.

    ``never`` raises NotFound with the command to run when the image is missing. An ID is never pulled:
    registries do not know it, and its image does not change.
    """
    wanted = platforms.parse_optional(platform)
    try:
        found = find.find(open_store(root), image, wanted)
    except NotFound as error:
        if not _is_name(image):
            raise
        if policy == "never":
            raise NotFound(f"{error} (run `layerstore pull {image}` or use --pull missing)") from None
    else:
        if policy != "always" or not _is_named(found, image):
            return
    # Not above: it loads the HTTP client, which a present image does not need.
    from layerstore.transport.pull import pull_image

    pull_image(
        open_store(root, make=True),
        reference.parse(image),
        wanted,
        options=options or RegistryOptions(),
        report=report,
        note=note_or_log(note),
    )


def _is_name(word: str) -> bool:
    if word.startswith("sha256:"):  # an ID, as `find` reads it
        return False
    try:
        reference.parse(word)
    except LayerstoreError:
        return False
    return True


def _is_named(found: FoundImage, word: str) -> bool:
    """Whether `word` is a name of the image, with a tag or by digest, rather than the beginning of its ID."""
    if word in found.names or not _is_name(word):
        return word in found.names
    ref = reference.parse(word)
    names = [reference.parse(name) for name in found.names if _is_name(name)]
    if ref.digest is not None:
        return any(one.repository == ref.repository for one in names)
    return any(one.canonical == ref.canonical for one in names)
