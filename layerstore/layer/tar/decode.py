"""Read the members of a layer tar as real writers make them, and refuse damaged ones.

Accepted: v7, ustar, GNU, star and PAX headers, base-256 numbers, GNU long names, local and global PAX
headers, every sparse format, file type bits in modes, a missing end-of-archive mark, a last member without
padding. Names are returned as the archive has them: `unpack` decides what they may mean on disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from layerstore.errors import InvalidLayer, LimitExceeded, UnsupportedMedia, printable, shortened
from layerstore.layer.tar import pax, sparse_read
from layerstore.layer.tar.entry import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    padding,
)
from layerstore.layer.tar.fields import is_header, number, text
from layerstore.layer.tar.readahead import TarStream
from layerstore.limits import Limits

_ZERO_BLOCK = bytes(BLOCK)
_HEADER_ONLY = frozenset((HARD_LINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
_REGULARS = frozenset((REGULAR, b"\0", b"7"))  # 7: contiguous, which no system implements
_OLD_SPARSE = b"S"
_DUMP_DIR = b"D"
_VOLUME = b"V"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _SOLARIS_PAX, _GLOBAL_PAX = b"x", b"X", b"g"


class TarReader:
    """Iterates over the members; `data` reads the content of the current one, once."""

    def __init__(self, tar: TarStream, limits: Limits) -> None:
        self.count = 0
        self._tar = tar
        self._limits = limits
        self._end = 0  # where the current member's data ends
        self._globals: pax.Records = {}
        self._clear()

    def _clear(self) -> None:
        """Drop what applied to one member only."""
        self._records: pax.Records = {}
        self._repeated: sparse_read.Repeated = []
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None

    def __iter__(self) -> Iterator[Entry]:
        while (header := self._next_header()) is not None:
            kind = header[156:157]
            if self._is_extension(kind, header):
                continue
            entry = self._entry(kind, header)
            self._end = self._tar.position + entry.stored
            self._clear()
            yield entry
            self._finish_member(entry)

    def data(self, entry: Entry) -> Iterator[memoryview]:
        """Yield the stored bytes of the current member that have not been read yet."""
        return self._tar.pieces(self._end - self._tar.position)

    def _finish_member(self, entry: Entry) -> None:
        left = self._end - self._tar.position
        if left and self._tar.skip(left) < left:
            raise InvalidLayer("the tar ends in the middle of it", entry.name)
        self._tar.skip(padding(entry.stored))  # may be missing: umoci does not pad the last member

    def _next_header(self) -> bytes | None:
        """Return the next header block; None at the end of the archive, marked or not."""
        header = self._tar.take(BLOCK)
        if not header:
            return self._no_more()
        if len(header) < BLOCK:
            raise InvalidLayer("the tar ends in the middle of a header")
        if header == _ZERO_BLOCK:
            second = self._tar.take(BLOCK)
            if second.strip(b"\0"):
                raise InvalidLayer("an empty block in the middle of the tar")
            return self._no_more()
        if not is_header(header):
            raise InvalidLayer("a damaged header, or not a tar")
        self.count += 1
        if self.count > self._limits.max_entries:
            raise LimitExceeded(f"the layer has more than {self._limits.max_entries} entries", "entries")
        return header

    def _no_more(self) -> bytes | None:
        """Return None, the end. Raises InvalidLayer when an extended header still waits for its member."""
        if self._records or self._repeated or self._long_name is not None or self._long_link is not None:
            raise InvalidLayer("the tar ends after an extended header")
        return None

    def _is_extension(self, kind: bytes, header: bytes) -> bool:
        """Read a header that describes the next member; returns False for a member's own."""
        if kind in (_PAX, _SOLARIS_PAX):
            self._records = {}
            self._repeated = []
            pax.parse(self._body(header, self._limits.max_pax), self._records, self._repeated)
        elif kind == _GLOBAL_PAX:
            pax.parse(self._body(header, self._limits.max_pax), self._globals, [])
            self._check_globals()
        elif kind == _LONG_NAME:
            self._long_name = text(self._body(header, self._limits.max_pax))
        elif kind == _LONG_LINK:
            self._long_link = text(self._body(header, self._limits.max_pax))
        elif kind == _VOLUME:
            self._body(header, self._limits.max_pax)
        else:
            return False
        return True

    def _check_globals(self) -> None:
        """Bound all global records together: they stay, and each later member is read with them."""
        most = self._limits.max_global_pax
        if sum(len(key) + len(value) for key, value in self._globals.items()) > most:
            raise LimitExceeded(f"global PAX records of more than {most} bytes", "global-pax")

    def _body(self, header: bytes, most: int) -> bytes:
        size = number(header[124:136])
        if size < 0:
            raise InvalidLayer("an extended header of negative size")
        if size > most:
            raise LimitExceeded(f"an extended header of {size} bytes: more than {most} are refused", "pax")
        body = self._tar.take(size)
        pad = padding(size)
        if len(body) < size or self._tar.skip(pad) < pad:
            raise InvalidLayer("the tar ends in an extended header")
        return body

    def _entry(self, kind: bytes, header: bytes) -> Entry:
        size = number(header[124:136])
        entry = Entry(
            _name(header) if self._long_name is None else self._long_name,
            kind,
            number(header[100:108]) & 0o7777,
            number(header[108:116]),
            number(header[116:124]),
            size,
            number(header[136:148]) * 1_000_000_000,
            text(header[157:257]) if self._long_link is None else self._long_link,
            stored=size,
        )
        records = {**self._globals, **self._records} if self._globals else self._records
        if records:
            pax.apply(records, entry)
        self._classify(entry, header)
        if (records or self._repeated) and entry.kind == REGULAR and entry.extents is None:
            sparse_read.read_pax(records, self._repeated, entry, self._tar, self._limits)
        self._check(entry)
        return entry

    def _classify(self, entry: Entry, header: bytes) -> None:
        """Reduce the kind to one of the seven that `unpack` knows. Raises UnsupportedMedia for others."""
        kind = entry.kind
        if kind in _REGULARS:
            is_v7_dir = kind == b"\0" and entry.name.endswith(b"/")
            entry.kind = DIRECTORY if is_v7_dir else REGULAR
        elif kind == _OLD_SPARSE:
            entry.kind = REGULAR
            sparse_read.read_old_gnu(header, entry, self._tar, self._limits)
        elif kind == _DUMP_DIR:
            entry.kind = DIRECTORY
            return  # its data is a list of names, which is skipped
        elif kind in (CHAR_DEVICE, BLOCK_DEVICE):
            entry.device = number(header[329:337]), number(header[337:345])
        elif kind not in _HEADER_ONLY:
            what = f"{shortened(printable(entry.name))}: a tar member of the unknown type {kind!r}"
            raise UnsupportedMedia(f"unsupported layer: {what}")
        if entry.kind in _HEADER_ONLY:
            entry.size = entry.stored = 0

    def _check(self, entry: Entry) -> None:
        if entry.stored < 0 or entry.size < 0:
            raise InvalidLayer("a negative size", entry.name)
        if entry.size > self._limits.max_file_size:
            name, most = printable(entry.name[:200]), self._limits.max_file_size
            what = f"{name}: a file of {entry.size} bytes, more than {most} are refused"
            raise LimitExceeded(what, "file-size")
        sparse_read.check(entry, self._limits)


def _name(header: bytes) -> bytes:
    """Return prefix and name, joined. Only POSIX headers have a prefix; GNU and star reuse its field."""
    name = text(header[:100])
    if header[257:263] != b"ustar\0":
        return name
    prefix = text(header[345:476] if header[508:512] == b"tar\0" else header[345:500])
    return prefix + b"/" + name if prefix else name
