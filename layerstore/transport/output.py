"""Write an archive to a file, which appears complete or not at all, or to a stream."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from layerstore.errors import LayerstoreError
from layerstore.store import durable, locking
from layerstore.undoing import undone

_NO_TMPFILE = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS))

_MODE = 0o600  # as docker: an image may hold secrets, such as /etc/shadow

OutputTarget = str | os.PathLike[str] | IO[bytes]


@contextmanager
def open_output(target: OutputTarget) -> Iterator[IO[bytes]]:
    """Yield a file to write to.

    A regular file gets its name when everything is written and synced; a device, a pipe or an open stream is
    written directly. A stream is flushed and stays open.
    """
    if not isinstance(target, str | os.PathLike):
        yield target
        target.flush()
        return
    path = Path(os.path.realpath(target))
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    temp = path.with_name(locking.temp_name())
    with undone(lambda: temp.unlink(missing_ok=True)), durable.filling(path):
        with open(_new_file(temp), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _give_name(file.fileno(), temp)
        os.rename(temp, path)


def _new_file(temp: Path) -> int:
    """Open a file without a name, so that killing this process leaves nothing; else the file `temp`.

    Not every file system supports files without names. The caller owns the descriptor.
    """
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(temp.parent, flags | os.O_TMPFILE, _MODE)
    except FileNotFoundError:
        raise LayerstoreError(f"no such directory: {temp.parent}") from None
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    return os.open(temp, flags | os.O_CREAT | os.O_EXCL, _MODE)


def _give_name(fd: int, temp: Path) -> None:
    if os.fstat(fd).st_nlink == 0:
        # Without a directory Python calls link(2), which follows no link.
        with durable.opened_dir(temp.parent) as parent_fd:
            os.link(f"/proc/self/fd/{fd}", temp.name, dst_dir_fd=parent_fd, follow_symlinks=True)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise LayerstoreError(f"{path} is a directory")
    return not stat.S_ISREG(mode)
