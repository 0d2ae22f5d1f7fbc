"""Answers through a pipe: a file's pages go from its cache to the kernel's request without coming here.

Saves one of the two copies of a large READ (bench: sequential read, first).
"""

import fcntl
import os

from overlayfs_py.engine.native.wire import OUT_HEADER, PAGE_SIZE

# As many pages as a process without CAP_SYS_RESOURCE may ask for (fs.pipe-max-size). The header has one, and
# what begins in the middle of a page takes one more.
_PIPE_PAGES = 256
LONGEST = (_PIPE_PAGES - 2) * PAGE_SIZE


class Piped:
    """An answer that lies in the pipe, header and all, `len` bytes of it contents."""

    __slots__ = ("pipe", "size")

    def __init__(self, pipe: "AnswerPipe", size: int) -> None:
        self.pipe = pipe
        self.size = size

    def __len__(self) -> int:
        return self.size

    def taken_back(self) -> bytes:
        """The contents, out of the pipe again: the answer has to wait, and others need the pipe."""
        return self.pipe.take_back(self.size)


Body = bytes | memoryview | Piped


class AnswerPipe:
    """Carries one answer at a time. Both ends belong to it until `close`."""

    def __init__(self) -> None:
        self._read_fd = self._write_fd = -1
        self._filled = False

    def fill(self, unique: int, fd: int, offset: int, size: int) -> "Piped | bytes":
        """The answer to READ `unique`: `size` bytes of `fd` from `offset` on, or what there is, as bytes.

        OSError where the pipe or the file's file system cannot do it.
        """
        self._empty()
        os.write(self._write_fd, OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique))
        self._filled = True
        got = 0
        while got < size:
            done = os.splice(fd, self._write_fd, size - got, offset + got, None, os.SPLICE_F_NONBLOCK)
            if not done:  # the header has promised more
                return self.take_back(got)
            got += done
        return Piped(self, size)

    def send(self, fuse_fd: int, size: int) -> None:
        """Hand over the answer with its `size` bytes of contents."""
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
        """A pipe with nothing in it: a new one when an answer went wrong."""
        if self._filled:
            self.close()
        if self._read_fd < 0:
            self._read_fd, self._write_fd = os.pipe()
            self._filled = False
            fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, _PIPE_PAGES * PAGE_SIZE)
