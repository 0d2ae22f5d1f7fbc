"""Decompress and digest a layer in its own thread, a few pieces ahead of the thread that unpacks it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from layerstore.digest import Digest, Hasher
from layerstore.errors import InvalidLayer
from layerstore.layer.tar.decompress import LayerReader

_AHEAD = 6  # pieces of about a MiB
_PIECE = 512 << 10
_CLOSE_SECONDS = 1.0


class TarStream:
    """Reads the tar bytes that its thread decompresses. Close it, or use it in a with statement.

    All methods that read raise what the reading thread raised. `drain` reads what follows the archive, so
    that the digest covers the whole stream.
    """

    def __init__(self, reader: LayerReader, progress: Callable[[int], None] | None = None) -> None:
        self.position = 0  # bytes taken so far
        self._reader = reader
        self._progress = progress
        self._hasher = Hasher()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._piece = b""
        self._at = 0
        self._ended = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="read layer", daemon=True)
        self._thread.start()

    def __enter__(self) -> TarStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; idempotent.

        Waits a second for a read that does not return, such as of an empty pipe; that thread then ends when
        the read returns, and its data is dropped.
        """
        self._closing = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            try:
                self._queue.get(timeout=0.02)
            except queue.Empty:
                pass

    def _run(self) -> None:
        try:
            for piece in _joined(self._reader.pieces()):
                self._hasher.update(piece)
                self._queue.put(piece)
                if self._closing:
                    return
            self._queue.put(None)
        except BaseException as error:  # raised again in the thread that unpacks
            self._queue.put(error)

    def _more(self) -> bool:
        """Make the next piece current; returns False at the end of the stream."""
        if self._ended:
            return False
        piece = self._queue.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        if piece is None:
            self._ended = True
            return False
        self._piece = piece
        self._at = 0
        if self._progress is not None:
            self._progress(self.position)
        return True

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes, or fewer at the end of the stream."""
        end = self._at + count
        if end <= len(self._piece):
            taken = self._piece[self._at : end]
            self._at = end
            self.position += count
            return taken
        parts = []
        left = count
        while left > 0 and (self._at < len(self._piece) or self._more()):
            part = self._piece[self._at : self._at + left]
            self._at += len(part)
            left -= len(part)
            parts.append(part)
        taken = b"".join(parts)
        self.position += len(taken)
        return taken

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield `count` bytes without joining them. Raises InvalidLayer when the stream ends before."""
        while count > 0:
            if self._at >= len(self._piece) and not self._more():
                raise InvalidLayer("the tar ends in the middle of a file")
            part = memoryview(self._piece)[self._at : self._at + count]
            self._at += len(part)
            self.position += len(part)
            count -= len(part)
            yield part

    def skip(self, count: int) -> int:
        """Skip `count` bytes; returns how many there were."""
        start = self.position
        while count > 0 and (self._at < len(self._piece) or self._more()):
            step = min(count, len(self._piece) - self._at)
            self._at += step
            self.position += step
            count -= step
        return self.position - start

    def drain(self) -> Digest:
        """Read the stream to its end; returns the digest of all of it."""
        self._at = len(self._piece)
        while self._more():
            self._at = len(self._piece)
        return self._hasher.digest()


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces, as zstd makes, until they are worth handing to another thread."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)
