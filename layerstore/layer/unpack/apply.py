"""Unpack one layer tar into an empty directory, as an overlay layer in the kernel's on-disk format.

Nothing is ever written outside that directory, whatever the tar says, and `Limits` bound what the tar
declares. Either the whole layer is unpacked or an exception is raised; what needs privilege and is left out
is noted.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from layerstore.digest import Digest, Readable
from layerstore.errors import InvalidLayer, LayerstoreError, printable, shortened
from layerstore.layer import whiteout
from layerstore.layer.notes import Notes
from layerstore.layer.ownermap import OwnerMap
from layerstore.layer.tar.decode import TarReader
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.entry import Entry
from layerstore.layer.tar.readahead import TarStream
from layerstore.layer.unpack.attributes import AttributeSetter
from layerstore.layer.unpack.lowers import LowerTree
from layerstore.layer.unpack.place import Placer
from layerstore.limits import DEFAULT_LIMITS, Limits

# Errors that the entry causes on any machine; others (ENOSPC, EIO, EPERM) are this machine's.
_ENTRYS_FAULT = (errno.ENAMETOOLONG, errno.ELOOP, errno.E2BIG, errno.ERANGE)


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The unpacked layer: digest and size of the tar itself, how it was compressed, and what was left out.

    `depends`: the tar may unpack to another directory over other layers. This is a property of the tar,
    whatever layers it was unpacked over.
    """

    diff_id: Digest
    uncompressed_size: int
    compression: str  # none, gzip, zstd, bzip2 or xz
    compressed_size: int
    entries: int
    depends: bool
    notes: tuple[str, ...]


def apply_layer(
    stream: Readable,
    dest_fd: int,
    *,
    lowers: Sequence[bytes] = (),
    limits: Limits = DEFAULT_LIMITS,
    privileged: bool = True,
    userxattr: bool = False,
    ids: OwnerMap | None = None,
    progress: Callable[[int], None] | None = None,
) -> ApplyResult:
    """Unpack the layer tar in `stream` (compressed or not) into the empty directory `dest_fd`.

    `lowers`: the unpacked layers below, topmost first. They provide the attributes of directories that the
    tar only implies, the symlinks that its paths lead through, the content of hard links into lower layers,
    and the names that an opaque root hides. `privileged=False`: owners are not set, and devices are left out
    with a note. `userxattr`: marks are ``user.overlay.*``. `ids` translates owners in the image to owners on
    disk. `progress` is called now and then with the number of uncompressed bytes so far. Reads `stream` to
    its end, so a VerifyingReader has checked everything when this returns. The caller makes the directory
    durable (syncfs) and renames it into place. Raises InvalidLayer, LimitExceeded, UnsupportedMedia and
    OSError; the directory is then incomplete, and the caller removes it.
    """
    notes = Notes()
    marks = whiteout.namespace(userxattr)
    with ExitStack() as owned:
        setter = AttributeSetter(marks, notes, privileged=privileged, ids=ids)
        owned.callback(setter.close)
        below = LowerTree(lowers, userxattr=userxattr)
        owned.callback(below.close)
        placer = Placer(dest_fd, marks, setter, below, notes, limits)
        owned.callback(placer.close)
        reader = LayerReader(stream, limits)
        tar = owned.enter_context(TarStream(reader, progress))
        members = TarReader(tar, limits)
        for entry in members:
            _put(placer, entry, members)
        placer.finish()
        diff_id = tar.drain()
        return ApplyResult(
            diff_id=diff_id,
            uncompressed_size=reader.size,
            compression=reader.compression,
            compressed_size=reader.compressed_size,
            entries=members.count,
            depends=below.consulted,
            notes=notes.lines(),
        )


def _put(placer: Placer, entry: Entry, members: TarReader) -> None:
    """Place a member; errors name it."""
    try:
        placer.put(entry, members.data)
    except OSError as error:
        if error.errno in _ENTRYS_FAULT:
            raise InvalidLayer(error.strerror or "impossible", entry.name[:300]) from None
        raise OSError(
            error.errno, f"cannot unpack /{shortened(printable(entry.name))}: {error.strerror}"
        ) from error
    except LayerstoreError as error:
        if isinstance(error, InvalidLayer) and error.path is None:
            raise InvalidLayer(error.why, entry.name) from None
        raise
