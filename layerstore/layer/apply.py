"""Unpack one layer tar into an empty directory, as an overlay layer (skeleton: signatures only)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerstore.digest import Digest, Readable
from layerstore.layer.limits import Limits


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The unpacked layer: digest and size of the tar itself, how it was compressed, and what was left out."""

    diff_id: Digest
    uncompressed_size: int
    compression: str  # none, gzip, zstd, bzip2 or xz
    compressed_size: int
    entries: int
    notes: tuple[str, ...]


def apply_layer(
    stream: Readable,
    dest_fd: int,
    *,
    lowers: Sequence[bytes] = (),
    limits: Limits = Limits(),
    privileged: bool = True,
    userxattr: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ApplyResult:
    """Unpack the layer tar in `stream` (compressed or not) into the empty directory `dest_fd`.

    `lowers`: the unpacked layers below, topmost first; they give the attributes of directories that the
    tar only implies and the content of hard links into lower layers. `privileged=False`: owners are not set and
    devices are left out with a note. `userxattr`: write marks as ``user.overlay.*``.
    Reads `stream` to its end, so a VerifyingReader has checked everything when this returns.
    `progress` is called now and then with the number of uncompressed bytes so far. The caller makes the directory
    durable (syncfs) and gives it its final name. Raises InvalidLayer, LimitExceeded, UnsupportedMedia, OSError.
    """
    raise NotImplementedError
