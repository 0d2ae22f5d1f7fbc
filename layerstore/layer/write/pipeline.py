"""Turn tar bytes into a blob: fill blocks, compress them on all cores, digest both sides, write.

The caller's thread fills blocks of 1 MiB, directly from the files where it can. A writer thread takes them in
order, digests the tar, waits for the block's compressed form (made by a pool when the codec is parallel),
digests and writes it, and returns the block. hashlib, isal, zstandard and write(2) release the interpreter
lock meanwhile. All blocks except the last are full, so the output depends on the input only. A block of zeros
is not compressed: the codec knows the result. Memory is bounded by the number of blocks.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING

from layerstore.digest import Hasher, HashingWriter
from layerstore.layer.tar.entry import BLOCK
from layerstore.layer.write.compress import BLOCK_SIZE, ZEROS, Codec

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_ALL_ZEROS = memoryview(ZEROS)

_Job = tuple[bytearray, memoryview, "Future[bytes | memoryview] | None"]


class Truncated(Exception):
    """A file ended before the size in its header."""


class Unreadable(Exception):
    """A file for the layer cannot be read; the message is the system's."""


class BlockWriter:
    """Takes tar bytes and writes a blob. Use it in a with statement: an exception stops its threads.

    `tar` digests the input, `blob` the output. `out` stays the caller's. The next call in the filling thread
    raises an error of the writer thread.
    """

    def __init__(self, out: IO[bytes], codec: Codec, progress: Callable[[int], None] | None = None) -> None:
        self.blob = HashingWriter(out)
        self.tar = self.blob.hasher if codec.is_identity else Hasher()
        self.size = 0
        self._codec = codec
        self._progress = progress
        workers = min(8, os.cpu_count() or 1)
        self._pool = _pool(workers) if codec.parallel else None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(2 * workers + 3):
            self._free.put(bytearray())
        self._block = bytearray()
        self._view = memoryview(self._block)
        self._at = 0  # how much of the block is filled
        self._error: BaseException | None = None
        self._stopping = False
        self._writer = threading.Thread(target=self._write_jobs, name="write layer", daemon=True)
        self._writer.start()
        self._next_block()

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._stop(abandon=kind is not None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write these bytes."""
        end = self._at + len(data)
        if end <= BLOCK_SIZE:  # the usual case: a header, or a small file's padding
            self._block[self._at : end] = data
            self._at = end
            return
        view = memoryview(data)
        while view:
            room = self._room()
            piece = view[:room]
            self._block[self._at : self._at + len(piece)] = piece
            self._at += len(piece)
            view = view[len(piece) :]

    def zeros(self, count: int) -> None:
        """Write `count` zero bytes; whole blocks of zeros are not even filled."""
        while count > 0:
            room = self._room()
            if room == BLOCK_SIZE <= count:
                self._put(_ALL_ZEROS)
                self._next_block()
                count -= BLOCK_SIZE
                continue
            piece = min(count, room)
            self._block[self._at : self._at + piece] = _ALL_ZEROS[:piece]
            self._at += piece
            count -= piece

    def copy(self, fd: int, offset: int, count: int) -> None:
        """Write `count` bytes of a file from `offset` on. Raises Truncated if it has fewer, or Unreadable."""
        while count > 0:
            room = min(BLOCK_SIZE - self._at or self._room(), count)
            try:
                got = os.preadv(fd, (self._view[self._at : self._at + room],), offset)
            except OSError as e:  # must not look like a failure of the disk that the layer is written to
                raise Unreadable(e.strerror) from e
            if got == 0:
                raise Truncated
            self._at += got
            offset += got
            count -= got

    def member(self, header: bytes, fd: int, size: int) -> None:
        """Write a header, `size` bytes of a file, and zeros up to a whole block. Raises as `copy` does."""
        data = self._at + len(header)
        end = data + size
        stop = end + -size % BLOCK
        if stop > BLOCK_SIZE:
            self.write(header)
            self.copy(fd, 0, size)
            self.zeros(-size % BLOCK)
            return
        # Nearly every file: one read, directly into the block.
        self._block[self._at : data] = header
        self._at = data
        if size:
            try:
                self._at += os.preadv(fd, (self._view[data:end],), 0)
            except OSError as e:
                raise Unreadable(e.strerror) from e
            if self._at < end:
                self.copy(fd, self._at - data, end - self._at)
            self._block[end:stop] = _ALL_ZEROS[: stop - end]
            self._at = stop

    def finish(self) -> None:
        """Write the rest and wait for the writer; then the digests are complete."""
        if self._at:
            self._submit()
        self._stop(abandon=False)
        if self._error is not None:
            raise self._error

    def _room(self) -> int:
        if self._at == BLOCK_SIZE:
            self._submit()
            self._next_block()
        return BLOCK_SIZE - self._at

    def _next_block(self) -> None:
        self._block = self._free.get()
        if not self._block:
            self._block = bytearray(BLOCK_SIZE)  # allocated when needed: a small layer needs one block
        self._view = memoryview(self._block)
        self._at = 0

    def _submit(self) -> None:
        is_zero = self._at == BLOCK_SIZE and self._block == ZEROS
        self._put(_ALL_ZEROS if is_zero else self._view[: self._at])

    def _put(self, data: memoryview) -> None:
        """Pass the content of the current block to the writer thread."""
        if self._error is not None:
            raise self._error
        self.size += len(data)
        future = None
        if self._pool is not None and data is not _ALL_ZEROS:
            future = self._pool.submit(self._codec.block, data)
        self._jobs.put((self._block, data, future))
        self._at = 0
        if self._progress is not None:
            self._progress(self.size)

    def _stop(self, *, abandon: bool) -> None:
        if self._stopping:
            return
        self._stopping = True
        if abandon and self._error is None:
            self._error = Truncated()
        self._jobs.put(None)
        self._writer.join()
        if self._pool is not None:
            self._pool.shutdown()

    def _write_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            block, data, future = job
            if self._error is None:
                try:
                    self._write_one(data, future)
                except BaseException as error:  # the filling thread raises it
                    self._error = error
            self._free.put(block)
        if self._error is None:
            try:
                self.blob.write(self._codec.finish())
            except BaseException as error:
                self._error = error

    def _write_one(self, data: memoryview, future: Future[bytes | memoryview] | None) -> None:
        if not self._codec.is_identity:  # else the blob is the tar and is digested once
            self.tar.update(data)
        self.blob.write(self._codec.join(data, self._compressed(data, future)))

    def _compressed(self, data: memoryview, future: Future[bytes | memoryview] | None) -> bytes | memoryview:
        if data is _ALL_ZEROS:
            return self._codec.zeros()
        return future.result() if future is not None else self._codec.block(data)


def _pool(workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # takes 3 ms, which other codecs do not need

    return ThreadPoolExecutor(workers, "compress")
