"""Copy file contents in the kernel where possible: by cloning, else by copy_file_range for each data
extent.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

FICLONE = 0x40049409  # _IOW(0x94, 9, int)

_CHUNK = 1 << 20
_SMALL = 1 << 16  # up to this, read and write are faster than copying by extents
_RANGE = 1 << 30  # copy_file_range's own limit is just below 2 GiB
_NEVER_CLONES = frozenset((errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY))
_CANNOT_COPY = frozenset((errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM))


def copy_data(src_fd: int, dst_fd: int, size: int, *, clone: bool = True, dense: bool = False) -> bool:
    """Copy the first `size` bytes of `src_fd` into the empty file `dst_fd`, keeping holes.

    `clone`: try to share the blocks. Returns whether to try that with the next file of these two file
    systems. `dense`: `src_fd` has no holes.

    The offsets of both descriptors are ignored; that of `src_fd` moves. After an error (ENOSPC, EDQUOT, EIO,
    EFBIG ...) the content of `dst_fd` is undefined. EIO: `src_fd` became shorter than `size`.
    """
    if not size:
        return clone
    cloned = _clone(src_fd, dst_fd) if clone else None
    if not cloned:
        if size <= _SMALL and (dense or _is_dense(src_fd)) and _copy_whole(src_fd, dst_fd, size):
            return cloned is not None
        copier = _Copier(src_fd, dst_fd)
        for start, end in data_extents(src_fd, size):
            copier.copy(start, end)
    if os.fstat(src_fd).st_size < size:
        raise _shrunk()
    os.ftruncate(dst_fd, size)
    return cloned is not None


def copy_range(src_fd: int, src_off: int, dst_fd: int, dst_off: int, size: int) -> int:
    """Call copy_file_range(2) once; return the bytes copied, 0 at the end of `src_fd`."""
    return os.copy_file_range(src_fd, dst_fd, size, src_off, dst_off)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of `data` by pwrite(2); return the bytes written.

    Fewer only when an error follows a partial write; the next write there raises it.
    """
    done = os.pwrite(fd, data, offset)
    if done < len(data):
        rest = memoryview(data)
        with contextlib.suppress(OSError):
            while done < len(rest):
                done += os.pwrite(fd, rest[done:], offset + done)
    return done


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the data in the first `size` bytes; one extent where holes are unknown."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return
            if error.errno != errno.EINVAL:
                raise
            yield end, size
            return
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


def _clone(src_fd: int, dst_fd: int) -> bool | None:
    """Share the blocks; whether that worked, None where it never does: between two file systems, or on one
    without reflinks.
    """
    try:
        fcntl.ioctl(dst_fd, FICLONE, src_fd)
    except OSError as error:  # or another error, which the copy meets again and raises
        return None if error.errno in _NEVER_CLONES else False
    return os.fstat(dst_fd).st_size > 0


def is_dense(st: os.stat_result) -> bool:
    """Whether the file has no holes; False also for a compressed file with fewer blocks than its size."""
    return st.st_blocks * 512 >= st.st_size


def _is_dense(fd: int) -> bool:
    return is_dense(os.fstat(fd))


def _copy_whole(src_fd: int, dst_fd: int, size: int) -> bool:
    """Copy a small file without holes by one read and one write; False if that was not complete."""
    content = os.pread(src_fd, size, 0)
    return len(content) == size == os.pwrite(dst_fd, content, 0)


class _Copier:
    """Copies byte ranges of one file to the same offsets of another; remembers whether the kernel supports
    it.
    """

    def __init__(self, src_fd: int, dst_fd: int) -> None:
        self._src_fd = src_fd
        self._dst_fd = dst_fd
        self._in_kernel = True
        self._buffer: bytearray | None = None

    def copy(self, start: int, end: int) -> None:
        while start < end:
            start += self._step(start, min(end - start, _RANGE))

    def _step(self, offset: int, size: int) -> int:
        if self._in_kernel:
            try:
                done = os.copy_file_range(self._src_fd, self._dst_fd, size, offset, offset)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                done = 0
            if done:
                return done
            # 0: the end of the file, or a filesystem without support that reports no error; reading tells
            # which.
            self._in_kernel = False
        return self._read_and_write(offset, min(size, _CHUNK))

    def _read_and_write(self, offset: int, size: int) -> int:
        # Not sendfile: it needs the offset of the destination, and is no faster than a warm 1 MiB buffer.
        if self._buffer is None:
            self._buffer = bytearray(_CHUNK)
        with memoryview(self._buffer)[:size] as view:
            got = os.preadv(self._src_fd, [view], offset)
            if got == 0:
                raise _shrunk()
            done = 0
            while done < got:
                done += os.pwrite(self._dst_fd, view[done:got], offset + done)
        return got


def _shrunk() -> OSError:
    return OSError(errno.EIO, "the source became shorter while it was copied")
