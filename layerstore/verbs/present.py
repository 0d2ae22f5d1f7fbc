"""``--pull``: an image that a verb needs is got from its registry first."""

from typing import Literal

from layerstore import reference
from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import find, platforms
from layerstore.image.find import Found
from layerstore.transport.base import RegistryOptions, Report, ignore
from layerstore.verbs.setting import Note, Root, open_store

When = Literal["always", "missing", "never"]


def make_present(
    image: str,
    when: When,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    root: Root = None,
    report: Report = ignore,
    note: Note | None = None,
) -> None:
    """See to it that the store has `image`: got from its registry `always`, if it is `missing`, or `never`,
    when NotFound says how. An ID is never pulled: no registry knows it, and what it means does not change.
    """
    try:
        found = find.find(open_store(root), image, platforms.parse_optional(platform))
    except NotFound as error:
        if not _is_name(image):
            raise
        if when == "never":
            raise NotFound(
                f"{error} (`layerstore pull {image}` gets it, and so does --pull missing)"
            ) from None
    else:
        if when != "always" or not _is_named(found, image):
            return
    from layerstore.verbs.pull import pull  # the HTTP client, for those who need it only

    pull(image, platform=platform, options=options, root=root, report=report, note=note)


def _is_name(word: str) -> bool:
    if word.startswith("sha256:"):  # always an ID, as `find` has it
        return False
    try:
        reference.parse(word)
    except LayerstoreError:
        return False
    return True


def _is_named(found: Found, word: str) -> bool:
    """Whether `word` is a name of the image, with a tag or by digest, rather than the beginning of its ID."""
    if word in found.names or not _is_name(word):
        return word in found.names
    ref = reference.parse(word)
    names = [reference.parse(name) for name in found.names if _is_name(name)]
    if ref.digest is not None:
        return any(one.repository == ref.repository for one in names)
    return any(one.canonical == ref.canonical for one in names)
