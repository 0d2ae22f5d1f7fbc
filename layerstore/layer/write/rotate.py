"""Turn an upper into the directory that unpacking its layer would give, by moving its files.

This repeats the walk that wrote the layer, so the directory holds exactly what the layer holds: marks of the
overlay go, redirected directories and metadata-only copies get what they refer to. Only those are copied;
everything else is renamed. So the upper is taken apart, and nothing else may use it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import ExitStack

from layerstore.errors import LayerstoreError, Unrepresentable, printable
from layerstore.layer import whiteout
from layerstore.layer.notes import Notes
from layerstore.layer.stack import StackPaths
from layerstore.layer.unpack.attributes import Attributes, AttributeSetter
from layerstore.layer.unpack.lowers import attributes_on_disk
from layerstore.layer.unpack.rootdir import RootDir
from layerstore.layer.write.unchanged import UnchangedFilter
from layerstore.layer.write.walk import FindData, Walk
from overlayfs_py.syscalls.as_owner import removexattr_at
from overlayfs_py.syscalls.attrs import set_mode
from overlayfs_py.syscalls.copy import copy_data
from overlayfs_py.union.reading import Reading, Real, list_xattrs

_O_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_THE_SYSTEM = "security.selinux"  # the system labels every new file
_BILLION = 1_000_000_000


def rotate(
    stack: StackPaths,
    dest_fd: int,
    *,
    source_date_epoch: int | None = None,
    exclude: Collection[bytes] = (),
    squash_unchanged: bool = False,
    keep: bool = False,
    privileged: bool = True,
) -> int:
    """Move what `stack.upper` changes into the empty directory `dest_fd` on the same file system.

    Returns the number of entries. The options must be those the layer was written with; sockets are left out.
    `keep` makes hard links and leaves the upper as it is, marks on its files included. The caller makes the
    directory durable. After an exception both directories are incomplete; with `keep` only `dest_fd` is.
    """
    with ExitStack() as owned:
        reading = owned.enter_context(stack.read())
        setter = AttributeSetter(reading.marks, Notes(), privileged=privileged, ids=None)
        owned.callback(setter.close)
        clamp_ns = None if source_date_epoch is None else source_date_epoch * _BILLION
        plot = _DirectoryWriter(reading, dest_fd, setter, clamp_ns, keep=keep, privileged=privileged)
        owned.callback(plot.close)
        unchanged = UnchangedFilter(reading) if squash_unchanged else None
        Walk(reading, plot, exclude, unchanged).changes()
        setter.set_directories(dest_fd)
        return plot.count


class _DirectoryWriter:
    """Puts a walk's entries into a directory. `close` closes its descriptors, not `dest_fd`."""

    def __init__(
        self,
        reading: Reading,
        dest_fd: int,
        setter: AttributeSetter,
        clamp_ns: int | None,
        *,
        keep: bool,
        privileged: bool,
    ) -> None:
        self.count = 0
        self._marks = reading.marks
        self._upper = reading.root.copied.layer
        self._setter = setter
        self._clamp_ns = clamp_ns
        self._keep = keep
        self._privileged = privileged
        self._root = RootDir(dest_fd, _no_parent)
        self._copied: dict[tuple[int, int], bytes] = {}  # inodes with several names: where the first is

    def close(self) -> None:
        self._root.close()

    def directory(self, path: bytes, real: Real) -> None:
        st = real.stat()
        if path:
            dir_fd, name = self._at(path)
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        self._setter.set_later(path, self._attributes(real, st))
        taken_apart = real.layer is self._upper and not self._keep
        if taken_apart and not self._privileged and st.st_mode & 0o700 != 0o700:
            set_mode(*real.at(), 0o700)  # so that its owner can move its files away
        self.count += 1

    def whiteout(self, directory: bytes, name: bytes) -> None:
        dir_fd, _ = self._root.directory(directory, make=False)
        os.mknod(name, stat.S_IFCHR, whiteout.WHITEOUT_DEVICE, dir_fd=dir_fd)
        self.count += 1

    def opaque_marker(self, directory: bytes) -> None:
        dir_fd, _ = self._root.directory(directory, make=False)
        os.setxattr(b"/proc/self/fd/%d" % dir_fd, self._marks.opaque, b"y")
        self.count += 1

    def other(self, path: bytes, real: Real, kind: int, find_data: FindData) -> bool:
        """Move or copy anything but a directory; returns False for a whiteout."""
        st = real.stat()
        if whiteout.is_whiteout_device(st):
            return False
        if stat.S_ISSOCK(st.st_mode):
            return True
        names = list_xattrs(real)
        source = self._content(path, real, st, names, find_data)
        if source is not None:
            self._copy(path, real, st, source)
        elif self._keep:
            self._link(path, real)
        else:
            self._take(path, real)
            self._clean(path, st, names)
        self.count += 1
        return True

    def gone(self, path: bytes) -> None:
        raise Unrepresentable(path, "it was removed meanwhile")

    def _content(
        self, path: bytes, real: Real, st: os.stat_result, names: list[str], find_data: FindData
    ) -> Real | None:
        """Return what to copy from; None for an inode of the upper with all its data, which can be moved."""
        is_own = real.layer.is_upper  # or one of its index
        if not stat.S_ISREG(st.st_mode):
            return None if is_own else real
        if is_own and self._marks.metacopy not in names:
            return None
        data = find_data()
        if data is None:
            raise Unrepresentable(path, "its data is not in the lower layers")
        return data

    def _take(self, path: bytes, real: Real) -> None:
        if real.layer is not self._upper:  # an entry of the index, which may have several names
            self._link(path, real)
            return
        source_fd, source = real.at()
        dir_fd, name = self._at(path)
        os.rename(source, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd)

    def _link(self, path: bytes, real: Real) -> None:
        source_fd, source = real.at()
        dir_fd, name = self._at(path)
        os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def _clean(self, path: bytes, st: os.stat_result, names: list[str]) -> None:
        """Make a file what unpacking would have made: no marks, no time after the clamp."""
        dir_fd, name = self._at(path)
        for xattr in names:
            travels = whiteout.xattr_for_layer(xattr, self._marks, _silent) is not None
            if not travels and xattr != _OF_THE_SYSTEM:
                _remove_xattr(dir_fd, name, xattr)
        mtime_ns = self._mtime(st)
        if mtime_ns != st.st_mtime_ns:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _copy(self, path: bytes, real: Real, st: os.stat_result, source: Real) -> None:
        """Copy what is in a layer below, or a metadata-only copy with its data."""
        if st.st_nlink > 1:
            first = self._copied.setdefault((st.st_dev, st.st_ino), path)
            if first != path:
                self._link_again(first, path)
                return
        dir_fd, name = self._at(path)
        wanted = self._attributes(real, st)
        if stat.S_ISREG(st.st_mode):
            self._copy_file(dir_fd, name, path, source, wanted)
            return
        if is_link := stat.S_ISLNK(st.st_mode):
            os.symlink(source.readlink(), name, dir_fd=dir_fd)
        else:
            os.mknod(name, stat.S_IFMT(st.st_mode) | 0o600, st.st_rdev, dir_fd=dir_fd)
        self._setter.set_special(dir_fd, name, wanted, path, symlink=is_link)

    def _link_again(self, first: bytes, path: bytes) -> None:
        first_fd, first_name = self._at(first)
        first_fd = os.dup(first_fd)  # the next `_at` may close it
        try:
            dir_fd, name = self._at(path)
            os.link(first_name, name, src_dir_fd=first_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        finally:
            os.close(first_fd)

    def _copy_file(self, dir_fd: int, name: bytes, path: bytes, source: Real, wanted: Attributes) -> None:
        source_fd = source.open(os.O_RDONLY)
        try:
            fd = os.open(name, _O_NEW, 0o600, dir_fd=dir_fd)
            try:
                copy_data(source_fd, fd, os.fstat(source_fd).st_size)
                self._setter.set_file(fd, wanted, path)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def _attributes(self, real: Real, st: os.stat_result) -> Attributes:
        return attributes_on_disk(real, self._marks)._replace(mtime_ns=self._mtime(st))

    def _mtime(self, st: os.stat_result) -> int:
        return st.st_mtime_ns if self._clamp_ns is None else min(st.st_mtime_ns, self._clamp_ns)

    def _at(self, path: bytes) -> tuple[int, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self._root.directory(parent, make=False)[0], name


def _no_parent(_dir_fd: int, _name: bytes, path: bytes, _make: bool, _replaces_whiteout: bool) -> None:
    raise LayerstoreError(f"/{printable(path)} has no entry of its own")


def _remove_xattr(dir_fd: int, name: bytes, xattr: str) -> None:
    try:
        removexattr_at(dir_fd, name, xattr)
    except OSError as error:
        if error.errno != errno.ENODATA:  # removed already, under another name of the inode
            raise


def _silent(_line: str) -> None:
    """Ignore a note: writing the layer has reported it already."""
