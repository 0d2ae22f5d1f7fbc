"""Compress a layer block by block with gzip, zstd or nothing: the same bytes on any number of cores.

gzip is igzip on independent blocks, each ended by a sync flush and joined into one member: blocks are
compressed in parallel, for 0.1 % more bytes than one stream. igzip level 2 is 4 times as fast as zlib's 6 for
6 % more bytes. zstd uses the library's own worker threads, whose output does not depend on their number.
"""

from __future__ import annotations

import os
import struct
from typing import Protocol

import zstandard
from isal import isal_zlib

from layerstore.errors import UnsupportedMedia
from layerstore.media import Compression

BLOCK_SIZE = 1 << 20
ZEROS = bytes(BLOCK_SIZE)

GZIP_LEVEL = 2
ZSTD_LEVEL = 3

# RFC 1952: deflate, no flags, no time, no extra flags, OS unknown, as Go writes it.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_EMPTY_BLOCK = b"\x03\x00"
_RAW_DEFLATE = -15
# The library's tables for level 3 exceed many caches, and matches of five bytes cost more than they save.
# With smaller tables, matches of six bytes and shorter jobs, level 3 takes a quarter to a half less time, and
# less memory, for 4 to 9 % more bytes (scripts/bench/layers, "commit, zstd").
_ZSTD_JOB = 2 << 20
_ZSTD_LEVEL_3 = {"hash_log": 16, "chain_log": 15, "min_match": 6, "overlap_log": 1}


class Codec(Protocol):
    """Compresses a stream of blocks.

    `block` is called once for each block, in any order and from several threads when `parallel`; for a block
    equal to `ZEROS`, `zeros` is called instead, in order. `join` is called with each block and its result, in
    order, and returns the bytes to write.
    """

    parallel: bool
    is_identity: bool  # the output is the input

    def block(self, data: memoryview) -> bytes | memoryview: ...
    def zeros(self) -> bytes: ...
    def join(self, data: memoryview, result: bytes | memoryview) -> bytes | memoryview: ...
    def finish(self) -> bytes: ...


class Plain:
    """No compression."""

    parallel = False
    is_identity = True

    def block(self, data: memoryview) -> memoryview:
        return data

    def zeros(self) -> bytes:
        return ZEROS

    def join(self, data: memoryview, result: bytes | memoryview) -> bytes | memoryview:
        return result

    def finish(self) -> bytes:
        return b""


class Gzip:
    """One gzip member of independently compressed blocks."""

    parallel = True
    is_identity = False

    def __init__(self, level: int) -> None:
        if not 0 <= level <= 3:
            raise UnsupportedMedia(f"gzip level {level}: the levels are 0 to 3")
        self._level = level
        self._crc = 0
        self._size = 0
        self._head = _GZIP_HEADER
        self._zeros = b""

    def block(self, data: memoryview) -> bytes:
        stream = isal_zlib.compressobj(self._level, wbits=_RAW_DEFLATE)
        return bytes(stream.compress(data)) + bytes(stream.flush(isal_zlib.Z_SYNC_FLUSH))

    def zeros(self) -> bytes:
        self._zeros = self._zeros or self.block(memoryview(ZEROS))
        return self._zeros

    def join(self, data: memoryview, result: bytes | memoryview) -> bytes | memoryview:
        self._crc = isal_zlib.crc32(data, self._crc)
        self._size += len(data)
        if self._head:
            result = self._head + bytes(result)
            self._head = b""
        return result

    def finish(self) -> bytes:
        return self._head + _LAST_EMPTY_BLOCK + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF)


class Zstd:
    """One zstd frame; a block of zeros is a frame of its own, and what follows it is another."""

    parallel = False
    is_identity = False

    def __init__(self, level: int) -> None:
        if not 1 <= level <= zstandard.MAX_COMPRESSION_LEVEL:
            raise UnsupportedMedia(
                f"zstd level {level}: the levels are 1 to {zstandard.MAX_COMPRESSION_LEVEL}"
            )
        tables = _ZSTD_LEVEL_3 if level == ZSTD_LEVEL else {}
        # At least one worker: with none the library cuts its jobs differently and the digest changes.
        threads = max(1, min(8, os.cpu_count() or 1))
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, threads=threads, job_size=_ZSTD_JOB, write_checksum=True, **tables
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._stream: zstandard.ZstdCompressionObj | None = self._compressor.compressobj()

    def block(self, data: memoryview) -> bytes:
        if self._stream is None:
            self._stream = self._compressor.compressobj()
        return self._stream.compress(data)

    def zeros(self) -> bytes:
        return self.finish() + _ZSTD_ZEROS

    def join(self, data: memoryview, result: bytes | memoryview) -> bytes | memoryview:
        return result

    def finish(self) -> bytes:
        rest = b"" if self._stream is None else self._stream.flush()
        self._stream = None
        return rest


def _zstd_zeros() -> bytes:
    """Return `ZEROS` as a frame made of runs of 4 KiB.

    The library would take ten times as long and compress it 30,000 to 1, which readers that bound the ratio
    refuse as a bomb (so does `Limits.max_ratio`).
    """
    # RFC 8878: magic, "single segment, size in four bytes", the size; blocks of type RLE: length, the byte.
    block = 4096 << 3 | 1 << 1
    blocks = [block.to_bytes(3, "little") + b"\0"] * (BLOCK_SIZE // 4096 - 1)
    last = (block | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\xa0" + BLOCK_SIZE.to_bytes(4, "little") + b"".join(blocks) + last


_ZSTD_ZEROS = _zstd_zeros()


def codec(compression: Compression, level: int | None = None) -> Codec:
    """Return the codec of this name. Raises UnsupportedMedia for an unknown name or level."""
    if compression == "none":
        return Plain()
    if compression == "gzip":
        return Gzip(GZIP_LEVEL if level is None else level)
    if compression == "zstd":
        return Zstd(ZSTD_LEVEL if level is None else level)
    raise UnsupportedMedia(f"unknown compression {compression!r}: it is gzip, zstd or none")
