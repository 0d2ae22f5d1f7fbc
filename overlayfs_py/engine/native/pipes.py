"""Answers through a pipe: a file's pages go from the page cache to the kernel's request, not through Python.

This saves one of the two copies of a large READ (benchmarks: sequential read, first).
"""

import fcntl
import os

from overlayfs_py.engine.native.wire import OUT_HEADER, PAGE_SIZE

# As many pages as a process without CAP_SYS_RESOURCE may have (fs.pipe-max-size). The header takes one, and
# data that begins in the middle of a page one more.
_PIPE_PAGES = 256
LONGEST = (_PIPE_PAGES - 2) * PAGE_SIZE


class Piped:
    """An answer in the pipe: the header and `size` bytes of contents."""

    __slots__ = ("pipe", "size")

    def __init__(self, pipe: "AnswerPipe", size: int) -> None:
        self.pipe = pipe
        self.size = size

    def __len__(self) -> int:
        return self.size

    def taken_back(self) -> bytes:
        """Read the contents back from the pipe, when the answer must wait and others need the pipe."""
        return self.pipe.take_back(self.size)


Body = bytes | memoryview | Piped


class AnswerPipe:
    """Carries one answer at a time; owns both ends until `close`."""

    def __init__(self) -> None:
        self._read_fd = self._write_fd = -1
        self._filled = False

    def fill(self, unique: int, fd: int, offset: int, size: int) -> "Piped | bytes":
        """Return the answer to READ `unique` with `size` bytes of `fd` at `offset`, or the shorter contents
        as bytes at the end of the file.

        OSError when the pipe or the file system does not support it.
        """
        self._empty()
        os.write(self._write_fd, OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique))
        self._filled = True
        got = 0
        while got < size:
            done = os.splice(fd, self._write_fd, size - got, offset + got, None, os.SPLICE_F_NONBLOCK)
            if not done:  # the header says more
                return self.take_back(got)
            got += done
        return Piped(self, size)

    def send(self, fuse_fd: int, size: int) -> None:
        """Send the answer with its `size` bytes of contents."""
        os.splice(self._read_fd, fuse_fd, OUT_HEADER.size + size)
        self._filled = False

    def take_back(self, size: int) -> bytes:
        """Empty the pipe of header and `size` bytes of contents."""
        content = bytearray(OUT_HEADER.size + size)
        view, got = memoryview(content), 0
        while got < len(content):
            got += os.readv(self._read_fd, (view[got:],))
        self._filled = False
        return bytes(view[OUT_HEADER.size :])

    def close(self) -> None:
        """Idempotent."""
        if self._read_fd >= 0:
            os.close(self._read_fd)
            os.close(self._write_fd)
        self._read_fd = self._write_fd = -1

    def _empty(self) -> None:
        """Make sure that the pipe is empty: open a new one after an unsent answer."""
        if self._filled:
            self.close()
        if self._read_fd < 0:
            self._read_fd, self._write_fd = os.pipe()
            self._filled = False
            fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, _PIPE_PAGES * PAGE_SIZE)
