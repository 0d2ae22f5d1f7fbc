"""Remove a directory tree of any depth, without recursion and without long paths."""

import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from overlayfs_py.syscalls.attrs import set_mode, unprotect
from overlayfs_py.syscalls.dirents import DT_DIR, read_dirents
from overlayfs_py.syscalls.openat import open_beneath

_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def remove_tree(name: bytes, *, dir_fd: int | None = None) -> None:
    """Remove directory `name` (below `dir_fd`, which the caller keeps) with its contents.

    No link is followed and no other mount entered. Everything that can be removed is removed; then the first
    error is raised. Closed directories of an ordinary user are opened first, and chattr(1)'s flags removed.
    Each directory's files are unlinked and its subdirectories moved to the top; then the directory is
    removed.
    """
    head, last = os.path.split(name)
    above_fd = os.open(head or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        top_fd = _open_to_empty(last, above_fd)
        try:
            emptying = _Emptying(top_fd)
            emptying.run()
            if emptying.error is not None:
                raise emptying.error
            _unprotected(lambda: os.rmdir(last, dir_fd=above_fd), top_fd)
        finally:
            os.close(top_fd)
    finally:
        os.close(above_fd)


def remove_file(name: bytes, *, dir_fd: int | None = None) -> None:
    """Unlink anything but a directory, also if it is immutable or append-only."""
    _unprotected(lambda: os.unlink(name, dir_fd=dir_fd), entry=(name, dir_fd))


class _Emptying:
    """Removes the contents of `top_fd`; `error` is the first error, if any."""

    def __init__(self, top_fd: int) -> None:
        self.error: OSError | None = None
        self._top_fd = top_fd
        prefix = b".removed-" + secrets.token_hex(8).encode()
        self._names = (b"%b-%d" % (prefix, count) for count in itertools.count(1))

    def run(self) -> None:
        pending = self._without_files(self._top_fd)
        while pending:
            child = pending.pop()
            try:
                pending += self._remove_directory(child)
            except OSError as error:
                self._note(error, child)

    def _remove_directory(self, child: bytes) -> list[bytes]:
        """Remove a directory of the top, after moving its subdirectories to the top; return their new
        names.
        """
        fd = _open_to_empty(child, self._top_fd)
        try:
            moved = [new for below in self._without_files(fd) if (new := self._move_up(below, fd))]
            try:
                _unprotected(lambda: os.rmdir(child, dir_fd=self._top_fd), fd, self._top_fd)
            except OSError as error:
                self._note(error, child)
            return moved
        finally:
            os.close(fd)

    def _move_up(self, name: bytes, dir_fd: int) -> bytes | None:
        new = next(self._names)
        try:
            if _is_kept_out():
                set_mode(dir_fd, name, 0o700)  # moving a directory to another one writes to it

            def move() -> None:
                os.rename(name, new, src_dir_fd=dir_fd, dst_dir_fd=self._top_fd)

            _unprotected(move, dir_fd, self._top_fd, entry=(name, dir_fd))
            return new
        except OSError as error:
            self._note(error, name)
            return None

    def _without_files(self, dir_fd: int) -> list[bytes]:
        """Unlink all but the directories; return their names."""
        directories = []
        for name, _, kind in read_dirents(dir_fd):
            if kind == DT_DIR:
                directories.append(name)
                continue
            try:
                os.unlink(name, dir_fd=dir_fd)
            except OSError:
                self._unlink_again(name, dir_fd)
        return directories

    def _unlink_again(self, name: bytes, dir_fd: int) -> None:
        try:
            _unprotected(lambda: os.unlink(name, dir_fd=dir_fd), dir_fd, entry=(name, dir_fd))
        except OSError as error:
            self._note(error, name)

    def _note(self, error: OSError, name: bytes) -> None:
        if self.error is None and error.errno != errno.ENOENT:
            self.error = OSError(error.errno, error.strerror, os.fsdecode(name))


def _unprotected(
    action: Callable[[], object], *fds: int, entry: tuple[bytes, int | None] | None = None
) -> None:
    """Do `action`; after EPERM remove chattr's flags from these directories and this entry, and do it
    again.
    """
    try:
        action()
    except PermissionError:
        taken = [unprotect(fd) for fd in fds]
        if entry is not None:
            taken.append(_unprotect_entry(*entry))
        if not any(taken):
            raise
        action()


def _unprotect_entry(name: bytes, dir_fd: int | None) -> bool:
    """As `unprotect`, by name; only files and directories have flags."""
    kind = stat.S_IFMT(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return False
    try:
        return unprotect(fd)
    finally:
        os.close(fd)


def _open_to_empty(name: bytes, dir_fd: int) -> int:
    if _is_kept_out():
        with suppress(PermissionError):  # another user's: try it as it is
            set_mode(dir_fd, name, 0o700)
    try:
        return open_beneath(dir_fd, name, _O_DIRECTORY, one_mount=True)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EBUSY, "a file system is mounted there") from None


def _is_kept_out() -> bool:
    """Whether modes apply to this process."""
    return os.geteuid() != 0
