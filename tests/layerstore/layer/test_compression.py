"""Compressing and decompressing: exact, deterministic, bounded, and strict about damage."""

import bz2
import errno
import gzip
import io
import lzma
import random
import struct
import threading
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from layerstore.digest import Digest
from layerstore.errors import InvalidLayer, LimitExceeded, UnsupportedMedia
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.readahead import TarStream
from layerstore.layer.write import compress
from layerstore.layer.write.compress import codec
from layerstore.layer.write.pipeline import BlockWriter
from layerstore.limits import DEFAULT_LIMITS, Limits


def compressed(data: bytes, compression: str, pieces: int = 1, level: int | None = None) -> bytes:
    out = io.BytesIO()
    with BlockWriter(out, codec(compression, level)) as writer:  # type: ignore[arg-type]
        step = max(1, -(-len(data) // pieces))
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
        writer.finish()
        assert writer.tar.digest() == Digest.of(data)
        assert writer.blob.digest() == Digest.of(out.getvalue())
    return out.getvalue()


class Drip(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(7, size or 0))


def decompressed(
    data: bytes, limits: Limits = DEFAULT_LIMITS, source: type[io.BytesIO] = io.BytesIO
) -> tuple[str, bytes]:
    reader = LayerReader(source(data), limits)
    content = b"".join(reader.pieces())
    assert (reader.size, reader.compressed_size) == (len(content), len(data))
    return reader.compression, content


def sample(size: int) -> bytes:
    """Neither random nor constant."""
    rng = random.Random(7)
    words = [rng.randbytes(rng.randrange(2, 12)) for _ in range(300)]
    return b"".join(rng.choice(words) for _ in range(size // 6))[:size]


BLOCK = compress.BLOCK_SIZE


@pytest.mark.parametrize("size", [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_round_trip(compression: str, size: int) -> None:
    data = sample(size)
    assert decompressed(compressed(data, compression)) == (compression, data)


def test_gzip_is_one_member_that_others_read() -> None:
    data = sample(2 * BLOCK + 5)
    blob = compressed(data, "gzip")
    stream = zlib.decompressobj(31)
    assert stream.decompress(blob) == data
    assert stream.eof
    assert not stream.unused_data
    assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "no time, no name"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_output_does_not_depend_on_how_it_was_written(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on the number of cores."""
    data = sample(5 * BLOCK + 1)
    first = compressed(data, compression)
    assert compressed(data, compression, pieces=1000) == first
    for cores in (1, 3, 16):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert compressed(data, compression) == first


def test_levels() -> None:
    data = sample(BLOCK)
    for level in range(4):
        assert decompressed(compressed(data, "gzip", level=level))[1] == data
    assert decompressed(compressed(data, "zstd", level=19))[1] == data
    refused = [("gzip", 4), ("gzip", -1), ("zstd", 0), ("zstd", 99), ("lz4", None)]
    for compression, wrong in refused:
        with pytest.raises(UnsupportedMedia):
            codec(compression, wrong)  # type: ignore[arg-type]


def skippable(size: int) -> bytes:
    return struct.pack("<II", 0x184D2A53, size) + bytes(size)


DATA = sample(100_000)
STREAMS = {
    "gzip members": gzip.compress(DATA[:5000]) + gzip.compress(b"") + gzip.compress(DATA[5000:]),
    "gzip and zeros": gzip.compress(DATA) + bytes(1000),
    "gzip with a name": b"\x1f\x8b\x08\x08\0\0\0\0\0\xffname\0" + gzip.compress(DATA, mtime=0)[10:],
    "bzip2": bz2.compress(DATA[:9]) + bz2.compress(DATA[9:]),
    "bzip2, padded": bz2.compress(DATA[:9]) + bytes(7) + bz2.compress(DATA[9:]) + bytes(700),
    "gzip members, padded": gzip.compress(DATA[:9]) + bytes(300_000) + gzip.compress(DATA[9:]) + bytes(5),
    "xz": lzma.compress(DATA),
    "xz, padded": lzma.compress(DATA[:9]) + bytes(4) + lzma.compress(DATA[9:]) + bytes(8),
    "xz, padded a lot": lzma.compress(DATA[:9]) + bytes(1 << 20) + lzma.compress(DATA[9:]),
    "xz streams": lzma.compress(DATA[:9], check=lzma.CHECK_NONE) + lzma.compress(DATA[9:], lzma.FORMAT_XZ),
    "zstd": zstandard.compress(DATA),
    "zstd frames": zstandard.compress(DATA[:9])
    + skippable(5000)
    + zstandard.compress(DATA[9:])
    + skippable(3),
    "zstd after a skippable frame": skippable(100_000) + zstandard.compress(DATA),
    "zstd, padded": zstandard.compress(DATA[:9]) + bytes(9) + zstandard.compress(DATA[9:]) + skippable(0),
    "zstd of many small frames": b"".join(
        zstandard.compress(DATA[at : at + 50]) for at in range(0, 100_000, 50)
    ),
    "zstd without a size": zstandard.ZstdCompressor(write_content_size=False).compress(DATA),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_other_writers(name: str) -> None:
    for source in (io.BytesIO, Drip):
        compression, content = decompressed(STREAMS[name], source=source)
        assert content == DATA
        assert name.startswith(compression)


@pytest.mark.parametrize("name", STREAMS)
def test_cut_streams_are_refused(name: str) -> None:
    """Each prefix that is not itself whole is an error, never a short layer."""
    blob = STREAMS[name]
    for cut in sorted({*range(7, 40), *range(40, len(blob), len(blob) // 50)}):
        try:
            _, content = decompressed(blob[:cut])
        except InvalidLayer:
            continue
        assert name in (
            "gzip and zeros",
            "gzip members",
            "bzip2",
            "zstd frames",
            "zstd after a skippable frame",
            "xz streams",
            "zstd of many small frames",
        ) or name.endswith(("padded", "padded a lot"))
        assert content in (DATA, b"", DATA[:9], DATA[:5000]) or "many" in name


@pytest.mark.parametrize("name", ["gzip members", "bzip2", "xz", "zstd"])
def test_damaged_streams_are_refused(name: str) -> None:
    """A flipped bit is met by the format's own check, or by the digest later; it is never a traceback."""
    blob = bytearray(STREAMS[name])
    for at in range(6, len(blob), max(1, len(blob) // 60)):
        blob[at] ^= 0x10
        try:
            decompressed(bytes(blob))
        except (InvalidLayer, LimitExceeded):
            pass
        blob[at] ^= 0x10
    blob[-6] ^= 1
    if name != "zstd":  # our zstd has a checksum, this one has none
        with pytest.raises(InvalidLayer):
            decompressed(bytes(blob))


def test_something_else_behind_the_stream() -> None:
    with pytest.raises(InvalidLayer):
        decompressed(gzip.compress(DATA) + b"garbage")
    with pytest.raises(InvalidLayer, match="unknown data follows"):
        decompressed(gzip.compress(DATA) + bytes(1 << 20) + b"garbage")


def test_zstd_hands_out_a_mebibyte_at_a_time() -> None:
    """Whatever is in its blocks: runs of four bytes, matches of ten, and bytes as they are."""
    size = 64 << 20
    run = (128 << 10) << 3 | 2
    frame = b"\x28\xb5\x2f\xfd\0\x58" + (run.to_bytes(3, "little") + b"a") * 512 + b"\x01\0\0"
    for blob in (
        frame,
        zstandard.compress(bytes(size)),
        zstandard.compress(random.Random(1).randbytes(size)),
    ):
        reader = LayerReader(io.BytesIO(blob), Limits(ratio_floor=size))
        assert max(map(len, reader.pieces())) <= 1 << 20
        assert reader.size == size


def test_xz_memory_is_bounded() -> None:
    big = lzma.compress(b"x", preset=9)
    with pytest.raises(LimitExceeded, match="memory"):
        decompressed(big, Limits(max_window=1 << 20))


class Failing(io.RawIOBase):
    """A disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: object) -> int:
        size = len(memoryview(data))  # type: ignore[arg-type]
        if size > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size
        return size


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("room", [0, 3 * BLOCK])
def test_a_full_disk_reaches_the_caller(compression: str, room: int) -> None:
    """And no thread is left behind."""
    before = threading.active_count()

    def fill() -> None:
        with BlockWriter(Failing(room), codec(compression)) as writer:  # type: ignore[arg-type]
            for _ in range(60):
                writer.write(random.Random(1).randbytes(BLOCK))
            writer.finish()

    with pytest.raises(OSError, match="No space"):
        fill()
    assert threading.active_count() == before


def test_leaving_early_stops_the_threads() -> None:
    before = threading.active_count()

    def leave() -> None:
        with BlockWriter(io.BytesIO(), codec("gzip")) as writer:
            writer.write(bytes(5 * BLOCK))
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    with TarStream(LayerReader(io.BytesIO(bytes(100 << 20)), DEFAULT_LIMITS)) as tar:
        tar.take(512)
    assert threading.active_count() == before


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 900), max_size=20))
def test_tar_bytes_are_the_stream(data: bytes, steps: list[int]) -> None:
    """However it is taken: exact, skipped or in pieces."""
    with TarStream(LayerReader(io.BytesIO(b"none: " + data), DEFAULT_LIMITS)) as tar:
        seen = tar.take(6)
        assert seen == b"none: "
        position = 6
        for number, step in enumerate(steps):
            left = 6 + len(data) - position
            if number % 3 == 0:
                assert tar.take(step) == data[position - 6 : position - 6 + step]
            elif number % 3 == 1:
                assert tar.skip(step) == min(step, left)
            elif step <= left:
                assert b"".join(tar.pieces(step)) == data[position - 6 : position - 6 + step]
            else:
                continue
            position = min(position + step, 6 + len(data))
            assert tar.position == position
        assert tar.drain() == Digest.of(b"none: " + data)
