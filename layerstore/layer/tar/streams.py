"""Streams between a tarball's source and its reader: one peeks, one copies, one joins pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layerstore.digest import Hasher, Readable

_PEEK = 6
_RECOMPRESSED = (b"BZh", b"\xfd7zXZ\x00")  # bzip2 and xz: no layer may be compressed with these


class PeekedStream:
    """Looks at a stream's first bytes, digests everything that is read, and reports how much that is."""

    def __init__(self, stream: Readable, progress: Callable[[int], None] | None) -> None:
        self._stream = stream
        self._progress = progress
        self.hasher = Hasher()
        self._head = b""
        while len(self._head) < _PEEK and (data := stream.read(_PEEK - len(self._head))):
            self._head += data
        self.must_be_recompressed = self._head.startswith(_RECOMPRESSED)

    def read(self, size: int = -1, /) -> bytes:
        if self._head and size >= 0:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data, self._head = self._head + self._stream.read(size), b""
        self.hasher.update(data)
        if self._progress is not None:
            self._progress(self.hasher.size)
        return data


class TeeReader:
    """Reads a stream and passes every byte to `write` as well."""

    def __init__(self, stream: Readable, write: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._write = write

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._write(data)
        return data


class PieceReader:
    """Reads an iterator of pieces as one stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return bytes(self._left) + b"".join(self._pieces)
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data
