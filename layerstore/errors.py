"""The errors of layerstore: what went wrong with an image, a layer or the store.

``str()`` of each is one complete line for the user: what failed, on what, why, and what to do, if anything.
Nothing here knows about exit codes; the command line turns every `LayerstoreError` into that line and exit
status 1. An `OSError` of the machine (ENOSPC, EIO) is not wrapped: neither the user nor the image caused it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from overlayfs_py.errors import for_people, shown

_SHOWN = 600  # characters


# A path (bytes), and text that came with an image, as one line that is safe to show.
printable, one_line = shown, for_people


def shortened(text: str) -> str:
    """Shorten a text to a readable line: hostile paths are thousands of characters long."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


def checked_text(text: str, what: str) -> str:
    """Return `text` for a document, which is UTF-8 in any locale; LayerstoreError when `what` is not UTF-8.

    Bytes of arguments that Python could not decode are surrogates in it (PEP 383).
    """
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise LayerstoreError(f"{what} is not UTF-8 text: {text}") from None


@contextmanager
def naming(path: bytes) -> Iterator[None]:
    """Within, give each OSError the path `path`, whichever system call raised it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, "/" + printable(path)) from None


def explain(error: Exception) -> str:
    """Return an error as one line; an OSError with its file and its reason."""
    if not isinstance(error, OSError):
        return str(error)
    what = error.strerror or str(error)
    return what if error.filename is None else f"{printable(os.fsencode(error.filename))}: {what}"


class LayerstoreError(Exception):
    """Base of the package's errors. Quoted parts of images are escaped: they cannot act on a terminal."""

    def __init__(self, line: str = "") -> None:
        super().__init__(one_line(line))


class NotFound(LayerstoreError):
    """No such image, layer, blob, tag or workspace."""


class OtherPlatforms(NotFound):
    """The image is for another platform than the requested one."""


class AlreadyExists(LayerstoreError):
    """The name is in use."""


class InUse(LayerstoreError):
    """It cannot be changed or removed while something else uses it."""


class InvalidReference(LayerstoreError):
    """A reference or a name does not follow the grammar."""


class InvalidDigest(LayerstoreError):
    """A digest does not follow the grammar: it must not be used, least of all as a path."""


class DigestMismatch(LayerstoreError):
    """Content does not match its descriptor: another digest, or another size."""


class InvalidImage(LayerstoreError):
    """A manifest, index, configuration or image layout breaks the specification."""


class UnsupportedMedia(LayerstoreError):
    """A media type, compression or archive feature that this version cannot read."""


class LimitExceeded(LayerstoreError):
    """Hostile or broken input exceeds a limit. `limit` is the name of the limit, if the user can raise it."""

    def __init__(self, what: str, limit: str = "") -> None:
        self.what = what
        self.limit = limit
        super().__init__(f"{what} (--limit {limit}=N allows more)" if limit else what)


class InvalidLayer(LayerstoreError):
    """A layer tar that cannot be unpacked safely and completely; names the entry, if one is at fault."""

    def __init__(self, why: str, path: bytes | None = None) -> None:
        self.why = why
        self.path = path
        shown = shortened(why)
        super().__init__(
            f"invalid layer: {shown}"
            if path is None
            else f"invalid layer: {shortened(printable(path))}: {shown}"
        )


class Unrepresentable(LayerstoreError):
    """A file of a workspace cannot be stored in a layer; the commit fails instead of losing it."""

    def __init__(self, path: bytes, why: str) -> None:
        self.why = why
        self.path = path
        super().__init__(f"cannot commit {printable(os.path.join(b'/', path))}: {why}")
