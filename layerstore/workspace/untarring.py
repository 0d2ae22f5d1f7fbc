"""Extract a tar stream into a directory of a workspace, for ``cp - NAME:DIR``: every path inside its root.

Links in the workspace are followed for parent directories, as a process in it would do, and never lead
outside, whatever is swapped meanwhile. Files are written under a temporary name and appear complete.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from layerstore import limits
from layerstore.digest import Readable
from layerstore.errors import InvalidLayer, LayerstoreError, LimitExceeded, printable
from layerstore.layer.tar.decode import TarReader
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.entry import DIRECTORY, HARD_LINK, MODE_OF_SPECIAL, REGULAR, SYMLINK, Entry
from layerstore.layer.tar.readahead import TarStream
from layerstore.layer.unpack.filling import fill
from layerstore.layer.unpack.rootdir import clean_path
from layerstore.workspace.resolving import proc_path
from overlayfs_py.syscalls import as_owner
from overlayfs_py.syscalls.openat import open_in_root

_DIR = os.O_RDONLY | os.O_DIRECTORY
_NODE = os.O_PATH | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID

Data = Iterator[memoryview]


@dataclass(slots=True)
class Extractor:
    """Extracts entries below the directory `path` of the root `root_fd`; `archive` keeps owners and
    xattrs.
    """

    root_fd: int
    path: bytes
    archive: bool
    progress: Callable[[int], None] | None = None
    written: int = 0
    _directories: list[tuple[bytes, int]] = field(default_factory=list)  # whose times are set at the end

    def extract(self, stream: Readable) -> None:
        """Read the whole stream, plain or compressed."""
        allowed = limits.current()
        try:
            with TarStream(LayerReader(stream, allowed)) as tar:
                members = TarReader(tar, allowed)
                for entry in members:
                    self._put(entry, members.data(entry))
                tar.drain()
        except InvalidLayer as error:
            where = "" if error.path is None else f"{printable(error.path[:200])}: "
            raise LayerstoreError(f"invalid tar: {where}{error.why}") from None
        except LimitExceeded as error:
            raise LimitExceeded(str(error).replace("the layer", "the tar")) from None
        finally:
            self._set_times()

    def _put(self, entry: Entry, data: Data) -> None:
        path = clean_path(entry.name, limits.current())
        if not path:
            return  # the target directory is left unchanged
        parent, _, name = path.rpartition(b"/")
        try:
            dir_fd = self._parent(parent)
            try:
                if entry.kind == DIRECTORY:
                    self._put_directory(dir_fd, name, path, entry)
                else:
                    self._put_other(dir_fd, name, entry, data)
            finally:
                os.close(dir_fd)
        except OSError as error:
            raise OSError(error.errno, error.strerror, printable(path)) from None

    def _parent(self, path: bytes) -> int:
        """Open a directory below the target; make missing directories."""
        try:
            return self._open(path, _DIR)
        except FileNotFoundError:
            steps = path.split(b"/")
        fd = self._open(b"", _DIR)
        for count, name in enumerate(steps, 1):
            above = fd
            try:
                fd = self._enter(above, name, b"/".join(steps[:count]))
            finally:
                os.close(above)
        return fd

    def _enter(self, dir_fd: int, name: bytes, path: bytes) -> int:
        try:
            return self._open(path, _DIR)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=dir_fd)
            return self._open(path, _DIR)

    def _open(self, path: bytes, flags: int) -> int:
        return open_in_root(self.root_fd, self.path + b"/" + path if path else self.path, flags)

    def _put_directory(self, dir_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                raise LayerstoreError(
                    f"cannot overwrite a non-directory with a directory: {printable(entry.name)}"
                ) from None
        fd = os.open(name, _DIR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            self._dress(fd, entry)
        finally:
            os.close(fd)
        self._directories.append((path, entry.mtime_ns))

    def _put_other(self, dir_fd: int, name: bytes, entry: Entry, data: Data) -> None:
        temp = b".tmp-" + secrets.token_hex(8).encode()
        try:
            self._make(dir_fd, temp, entry, data)
            os.rename(temp, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except IsADirectoryError:
            raise LayerstoreError(
                f"cannot overwrite a directory with a non-directory: {printable(entry.name)}"
            ) from None
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temp, dir_fd=dir_fd)

    def _make(self, dir_fd: int, temp: bytes, entry: Entry, data: Data) -> None:
        if entry.kind == REGULAR:
            self._make_file(dir_fd, temp, entry, data)
        elif entry.kind == HARD_LINK:
            self._make_link(dir_fd, temp, entry)
        elif entry.kind == SYMLINK:
            os.symlink(entry.linkname, temp, dir_fd=dir_fd)
            if self.archive:
                os.chown(temp, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
            os.utime(temp, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        else:
            os.mknod(temp, MODE_OF_SPECIAL[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=dir_fd)
            fd = os.open(temp, _NODE | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                if self.archive:
                    os.chown(proc_path(fd), entry.uid, entry.gid)
                os.chmod(proc_path(fd), self._mode(entry))
                os.utime(proc_path(fd), ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)

    def _make_file(self, dir_fd: int, temp: bytes, entry: Entry, data: Data) -> None:
        fd = os.open(temp, _NEW, 0o600, dir_fd=dir_fd)
        try:
            fill(fd, entry, data, self._count)
            self._dress(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _count(self, written: int) -> None:
        self.written += written
        if self.progress is not None:
            self.progress(self.written)

    def _make_link(self, dir_fd: int, temp: bytes, entry: Entry) -> None:
        """Make a hard link to a file of an earlier entry, or to one that was there."""
        target = clean_path(entry.linkname or b".", limits.current(), entry.name)
        try:
            fd = self._open(target, _NODE)
        except FileNotFoundError:
            raise InvalidLayer(
                f"a hard link to {printable(target)}, which does not exist", entry.name
            ) from None
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise InvalidLayer(f"a hard link to the directory {printable(target)}", entry.name)
            os.link(proc_path(fd), temp, dst_dir_fd=dir_fd, follow_symlinks=True)
        finally:
            os.close(fd)

    def _dress(self, fd: int, entry: Entry) -> None:
        """Set the owner, then the mode (chown clears bits of it), then xattrs."""
        if self.archive:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, self._mode(entry))
        for name, value in entry.xattrs.items():
            if self.archive or name.startswith("user."):
                as_owner.setxattr_at(fd, b"", name, value)

    def _mode(self, entry: Entry) -> int:
        """Return the mode without set-id bits unless the owner is kept: they would mean another user."""
        mode = entry.mode & 0o7777
        return mode if self.archive or entry.kind == DIRECTORY else mode & ~_SET_ID

    def _set_times(self) -> None:
        for path, mtime_ns in reversed(self._directories):
            with suppress(OSError):  # replaced meanwhile
                fd = self._open(path, _DIR)
                try:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)
