"""Decompress a layer within limits; its first bytes say how it is compressed.

Every decompressor returns bounded pieces, so that a few kilobytes cannot become gigabytes in memory, and the
ratio and the total are checked on the way. A stream that ends early is an error. Several members or frames in
a row are one stream; zeros between and after them are ignored, anything else there is an error.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, cast

import zstandard
from isal import igzip_lib

from layerstore.digest import Readable
from layerstore.errors import InvalidLayer, LimitExceeded
from layerstore.layer.tar.entry import BLOCK
from layerstore.layer.tar.fields import is_header
from layerstore.limits import Limits

_CHUNK = 1 << 20
_INPUT = 256 << 10  # compressed bytes per read
_ZSTD_BLOCK = 128 << 10  # the most that one block of a zstd frame decompresses to
_ZSTD_HEADER = 18  # the most bytes before the first block

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"


_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    MemoryError,
    lzma.LZMAError,
    zstandard.ZstdError,
    cast("type[Exception]", igzip_lib.IsalError),
)


class _Member(Protocol):
    """A decompressor of one member, with the interface of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _ZstdMember:
    """zstandard's decompressor of one frame, with the others' interface.

    It decompresses all of its input at once, and four bytes can become 128 KiB: so it gets a few blocks at a
    time.
    """

    def __init__(self, max_window: int) -> None:
        self.needs_input = True
        self._frame = zstandard.ZstdDecompressor(max_window_size=max_window).decompressobj()
        self._waiting = b""
        self._left = -1  # bytes of the current block still to come; -1 before the header
        self._is_last = False

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._waiting

    def decompress(self, data: bytes, max_length: int = _CHUNK) -> bytes:
        data = self._waiting + data
        count = self._cut(data, max(1, max_length // _ZSTD_BLOCK))
        self._waiting = data[count:]
        self.needs_input = not count or not self._waiting
        return self._frame.decompress(data[:count])

    def _cut(self, data: bytes, most: int) -> int:
        """Return how many bytes of `data` hold at most `most` blocks; the library reports damaged ones."""
        at = 0
        if self._left < 0:
            at = _zstd_header(data)
            if not at:
                return 0
            self._left, self._is_last = 0, _is_skippable(data)
        while True:
            step = min(self._left, len(data) - at)
            at, self._left = at + step, self._left - step
            if self._is_last and not self._left:
                return len(data)  # a checksum, and what follows the frame
            if self._left or not most or len(data) - at < 3:
                return at
            word = int.from_bytes(data[at : at + 3], "little")
            is_run = word >> 1 & 3 == 1
            self._is_last, self._left = bool(word & 1), 3 + (1 if is_run else word >> 3)
            most -= 1


class LayerReader:
    """Reads the tar bytes of a layer in pieces, and counts both sizes; knows `compression` from the start."""

    def __init__(self, source: Readable, limits: Limits) -> None:
        self.compressed_size = 0
        self.size = 0
        self._source = source
        self._limits = limits
        self._head = self._read_head()
        self.compression, self._new_member = self._sniff(self._head)

    def pieces(self) -> Iterator[bytes]:
        """Yield the tar, to the end of the stream. Raises LimitExceeded or InvalidLayer on the way."""
        made = self._plain() if self._new_member is None else self._members(self._new_member)
        for piece in made:
            self.size += len(piece)
            self._check()
            yield piece

    def _check(self) -> None:
        limits = self._limits
        if self.size > limits.max_bytes:
            raise LimitExceeded(f"the layer is larger than {limits.max_bytes} bytes", "bytes")
        if self.size > limits.ratio_floor and self.size > limits.max_ratio * self.compressed_size:
            what = f"the layer expands more than {limits.max_ratio} times: a decompression bomb"
            raise LimitExceeded(what, "ratio")

    def _read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        data = self._source.read(size)
        self.compressed_size += len(data)
        return data

    def _read_head(self) -> bytes:
        head = b""
        while len(head) < BLOCK:
            data = self._source.read(BLOCK - len(head))
            if not data:
                break
            head += data
        self.compressed_size = len(head)
        return head

    def _sniff(self, head: bytes) -> tuple[str, Callable[[], _Member] | None]:
        window = self._limits.max_window
        if len(head) == BLOCK and is_header(head):  # a tar, even if its first name begins like gzip
            return "none", None
        if head.startswith(_GZIP):
            return "gzip", lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        if head.startswith(_ZSTD) or _is_skippable(head):
            return "zstd", lambda: _ZstdMember(window)
        if head.startswith(_BZIP2):
            return "bzip2", bz2.BZ2Decompressor
        if head.startswith(_XZ):
            return "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=window)
        return "none", None

    def _plain(self) -> Iterator[bytes]:
        while data := self._read(_CHUNK):
            yield data

    def _members(self, new_member: Callable[[], _Member]) -> Iterator[bytes]:
        data = self._read(_INPUT)
        while data:
            data = self._next_member((yield from self._member(new_member(), data)))

    def _next_member(self, data: bytes) -> bytes:
        """Return what follows a member, without zeros before it: xz pads with them, and tapes at the end."""
        rest = data.lstrip(b"\0")
        while len(rest) < len(_XZ) and (data := self._read(_INPUT)):
            rest = (rest + data).lstrip(b"\0")
        if rest and self._sniff(rest[: len(_XZ)])[0] != self.compression:
            raise InvalidLayer(f"unknown data follows the {self.compression} stream")
        return rest

    def _member(self, member: _Member, data: bytes) -> Generator[bytes, None, bytes]:
        """Yield the pieces of one member; returns the input that follows it."""
        while True:
            try:
                piece = member.decompress(data, _CHUNK)
            except _DAMAGE as error:
                raise self._damaged(error) from None
            if piece:
                yield piece
            if member.eof:
                return member.unused_data
            data = b""
            if member.needs_input:
                data = self._read(_INPUT)
                if not data:
                    raise InvalidLayer(f"the {self.compression} stream ends early")

    def _damaged(self, error: Exception) -> Exception:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            most = self._limits.max_window
            what = f"the {self.compression} stream needs more than {most} bytes of memory"
            return LimitExceeded(what, "window")
        return InvalidLayer(f"the {self.compression} stream is damaged ({error})")


def _zstd_header(data: bytes) -> int:
    """Return the size of a zstd frame's header; 0 while it is incomplete."""
    if _is_skippable(data):
        return 4
    try:
        size = zstandard.frame_header_size(data[:_ZSTD_HEADER])
    except zstandard.ZstdError:
        size = _ZSTD_HEADER
    return size if size <= len(data) else 0


def _is_skippable(head: bytes) -> bool:
    """Return whether this is a zstd frame without content (zstd:chunked, pzstd), which the library skips."""
    return len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"
