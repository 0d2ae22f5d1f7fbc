"""Write the upper directory of an overlay as one OCI layer (skeleton: signatures only)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import IO, Literal

from layerstore.digest import Digest
from layerstore.layer.stack import Stack

Compression = Literal["gzip", "zstd", "none"]


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What was written: the blob (digest, size), the tar inside it (diff_id, uncompressed_size), and what was left out."""

    digest: Digest
    size: int
    diff_id: Digest
    uncompressed_size: int
    entries: int
    notes: tuple[str, ...]  # sockets left out and the like: one line each


def write_layer(
    stack: Stack,
    out: IO[bytes],
    *,
    compression: Compression = "gzip",
    level: int | None = None,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = (),
    sparse: bool = True,
    progress: Callable[[int], None] | None = None,
) -> LayerResult:
    """Write the changes that `stack.upper` makes to `stack.lowers` to `out` as a layer tar.

    `exclude` are paths relative to the root, without a leading slash; each is left out with all below it.
    `progress` is called now and then with the number of tar bytes written so far.
    Raises Unrepresentable, naming the path, for anything that has no form in a layer. `out` is not closed.
    """
    raise NotImplementedError


def export_tree(
    stack: Stack,
    out: IO[bytes],
    *,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = (),
    sparse: bool = True,
    progress: Callable[[int], None] | None = None,
) -> LayerResult:
    """Write the whole merged tree of `stack` as a plain tar without whiteouts (docker export)."""
    raise NotImplementedError
