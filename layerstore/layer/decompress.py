"""Read a layer whatever it is compressed with, found out from its first bytes, within limits.

Every decompressor hands out bounded pieces, so that a few kilobytes cannot become gigabytes in memory,
and the ratio and the total are checked on the way. A stream that ends early is an error; several members
or frames in a row are one stream, zeros after the last are ignored, anything else there is an error.
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
from layerstore.layer.entry import BLOCK
from layerstore.layer.fields import is_header
from layerstore.limits import Limits

_CHUNK = 1 << 20
# zstd's decompressor cannot be told to stop after so many bytes, and one byte of input can become 32 KiB.
_ZSTD_INPUT = 2 << 10

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
    """A decompressor of one member, as in bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _ZstdMember:
    """zstandard's decompressor with the others' interface; it always needs input."""

    needs_input = True

    def __init__(self, max_window: int) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=max_window).decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._frame.decompress(data)


class LayerReader:
    """The tar bytes of a layer, in pieces. `compression` is known after construction, the counters grow
    meanwhile.
    """

    def __init__(self, source: Readable, limits: Limits) -> None:
        self.compressed_size = 0
        self.size = 0
        self._source = source
        self._limits = limits
        self._head = self._read_head()
        self.compression, self._new_member, self._input = self._sniff(self._head)

    def pieces(self) -> Iterator[bytes]:
        """The tar, from the start to the end of the stream; LimitExceeded or InvalidLayer on the way."""
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

    def _sniff(self, head: bytes) -> tuple[str, Callable[[], _Member] | None, int]:
        window = self._limits.max_window
        if len(head) == BLOCK and is_header(head):  # whatever its first name begins with
            return "none", None, _CHUNK
        if head.startswith(_GZIP):
            return "gzip", lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), _CHUNK >> 2
        if head.startswith(_ZSTD) or _is_skippable(head):
            return "zstd", lambda: _ZstdMember(window), _ZSTD_INPUT
        if head.startswith(_BZIP2):
            return "bzip2", bz2.BZ2Decompressor, _CHUNK >> 2
        if head.startswith(_XZ):
            return "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=window), _CHUNK >> 2
        return "none", None, _CHUNK

    def _plain(self) -> Iterator[bytes]:
        while data := self._read(_CHUNK):
            yield data

    def _members(self, new_member: Callable[[], _Member]) -> Iterator[bytes]:
        data = self._read(self._input)
        while data:
            data = yield from self._member(new_member(), data)
            data = data or self._read(self._input)
            if data and not data.strip(b"\0"):
                self._only_zeros_follow()
                return

    def _member(self, member: _Member, data: bytes) -> Generator[bytes, None, bytes]:
        """The pieces of one member; returns the input that follows it."""
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
                data = self._read(self._input)
                if not data:
                    raise InvalidLayer(f"the {self.compression} stream ends early")

    def _damaged(self, error: Exception) -> Exception:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            most = self._limits.max_window
            what = f"the {self.compression} stream asks for more than {most} bytes of memory"
            return LimitExceeded(what, "window")
        return InvalidLayer(f"the {self.compression} stream is damaged ({error})")

    def _only_zeros_follow(self) -> None:
        while data := self._read(_CHUNK):
            if data.strip(b"\0"):
                raise InvalidLayer(f"something else follows the {self.compression} stream")


def _is_skippable(head: bytes) -> bool:
    """A zstd frame without content (zstd:chunked, pzstd); the library skips it itself."""
    return len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"
