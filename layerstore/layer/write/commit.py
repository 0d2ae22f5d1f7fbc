"""Write the upper directory of an overlay as one OCI layer, or a whole merged tree as a plain tar.

Only the upper is read, one directory at a time. Lower layers are read where the upper refers to them: a
redirected directory is written in full (its old name has a whiteout already), a metacopy file with the data
from below. Nothing is left out silently: what a layer cannot hold raises Unrepresentable, sockets are noted.
Equal trees give equal bytes: names in byte order, no user names, no access times, no process ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import IO, NamedTuple

from layerstore.digest import Digest
from layerstore.layer.notes import Notes
from layerstore.layer.ownermap import OwnerMap
from layerstore.layer.stack import StackPaths
from layerstore.layer.tar.encode import END
from layerstore.layer.write.compress import codec
from layerstore.layer.write.members import MemberWriter
from layerstore.layer.write.pipeline import BlockWriter
from layerstore.layer.write.unchanged import UnchangedFilter
from layerstore.layer.write.walk import Walk
from layerstore.limits import DEFAULT_LIMITS, Limits
from layerstore.media import Compression


class LayerResult(NamedTuple):
    """The blob written (digest, size), the tar in it (diff_id, uncompressed_size), and what was left out."""

    digest: Digest
    size: int
    diff_id: Digest
    uncompressed_size: int
    entries: int
    notes: tuple[str, ...]  # sockets left out and the like: one line each
    unchanged: int = 0  # how many entries were left out because they change nothing,
    unchanged_size: int = 0  # and their bytes


def write_layer(
    stack: StackPaths,
    out: IO[bytes],
    *,
    compression: Compression = "gzip",
    level: int | None = None,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = (),
    squash_unchanged: bool = False,
    sparse: bool = False,
    ids: OwnerMap | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> LayerResult:
    """Write the changes that `stack.upper` makes to `stack.lowers` to `out` as a layer tar.

    `exclude` are paths relative to the root, without a leading slash; each is left out with all below it.
    `squash_unchanged` leaves out entries that differ from the lowers in their times only (see `unchanged`).
    `source_date_epoch`: later times become this one. Holes are written as zeros; with `sparse`, files with
    large holes are PAX sparse 1.0, which some clients unpack but cannot pass on. `ids` translates owners on
    disk to owners in the image. `progress` is called now and then with the number of tar bytes so far. Raises
    Unrepresentable, naming the path, for what a layer cannot hold, and LimitExceeded for what `limits` would
    refuse to unpack. `out` stays the caller's.
    """
    notes = Notes()
    with stack.read() as reading, BlockWriter(out, codec(compression, level), progress) as sink:
        members = MemberWriter(
            reading, sink, notes, clamp=source_date_epoch, sparse=sparse, ids=ids, limits=limits
        )
        unchanged = UnchangedFilter(reading) if squash_unchanged else None
        Walk(reading, members, exclude, unchanged).changes()
        result = _finish(sink, members, notes)
        if unchanged is None:
            return result
        return result._replace(unchanged=unchanged.count, unchanged_size=unchanged.size)


def export_tree(
    stack: StackPaths,
    out: IO[bytes],
    *,
    compression: Compression = "none",
    level: int | None = None,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = (),
    sparse: bool = False,
    ids: OwnerMap | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> LayerResult:
    """Write the whole merged tree of `stack` as a tar without whiteouts, as docker export does.

    The parameters are those of `write_layer`.
    """
    notes = Notes()
    with stack.read() as reading, BlockWriter(out, codec(compression, level), progress) as sink:
        members = MemberWriter(
            reading, sink, notes, clamp=source_date_epoch, sparse=sparse, ids=ids, limits=limits
        )
        Walk(reading, members, exclude).everything()
        return _finish(sink, members, notes)


def _finish(sink: BlockWriter, members: MemberWriter, notes: Notes) -> LayerResult:
    sink.write(END)
    sink.finish()
    return LayerResult(
        digest=sink.blob.digest(),
        size=sink.blob.size,
        diff_id=sink.tar.digest(),
        uncompressed_size=sink.tar.size,
        entries=members.count,
        notes=notes.lines(),
    )
