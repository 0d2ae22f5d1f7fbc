"""Layers and the real files in them: one root descriptor a layer, directory descriptors opened on demand.

A `Real` is a file or directory of one layer, addressed by its parent's descriptor
and a single name, so no path is ever walked and no symlink followed. An inode
that lost its name (or a layer's root) has no parent and is addressed by its own
descriptor instead. What modes deny to the daemon, which owns it, is read all the same: the kernel has checked
that the caller may.

Descriptors are O_PATH, and there are few of them: a directory's is opened when something in it is needed, and
the cache of the mount closes the oldest ones. So names hold the truth and descriptors only speed it up
(bench: stat, first; memory with 100,000 known inodes).
"""

import os
import stat

from overlayfs_py.syscalls import as_owner
from overlayfs_py.union.descriptors import FdCache, Held

O_DIRFD = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
O_INODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH = 4000  # PATH_MAX with room to spare


class Layer:
    """One directory tree of the stack. Owns `root`'s descriptor.

    `nosuid`: its mount grants no set-user-ID, so neither may a copy of its files.
    `position`: -1 for the upper, else the index among the lowers. `dev`: its root's st_dev; what is inside
    may have others. `private`: a mount of its own, which shows nothing that is mounted inside.
    `noatime`: reading leaves access times alone: always in a lower, in the upper where the mount says so.
    `aufs`: whether names beginning with ``.wh.`` are marks in it: on, off, or auto, where nothing says that
    they are users'. `overrides`: xattrs that tell its files' owners and modes.
    """

    __slots__ = (
        "aufs",
        "dev",
        "fds",
        "fstype",
        "held",
        "noatime",
        "nosuid",
        "overrides",
        "path",
        "position",
        "private",
        "root",
    )

    def __init__(
        self,
        path: bytes,
        root_fd: int,
        position: int,
        fds: "FdCache[Real]",
        held: Held,
        *,
        private: bool = False,
    ) -> None:
        self.path = path
        self.position = position
        self.fds = fds
        self.held = held
        self.dev = os.fstat(root_fd).st_dev
        self.private = private
        self.noatime = position >= 0
        self.aufs = "off"
        self.overrides: tuple[str, ...] = ()
        self.fstype = 0
        self.nosuid = bool(os.fstatvfs(root_fd).f_flag & os.ST_NOSUID)
        self.root = Real(self, None, b"")
        self.root.fd = root_fd

    @property
    def is_upper(self) -> bool:
        return self.position < 0

    def close(self) -> None:
        """Close the root descriptor; idempotent."""
        if self.root.fd >= 0:
            os.close(self.root.fd)
            self.root.fd = -1

    def __repr__(self) -> str:
        return f"Layer({self.position}, {os.fsdecode(self.path)!r})"


class Real:
    """A file or directory in one layer. `fd` is an O_PATH descriptor, or -1 when not open."""

    __slots__ = ("fd", "layer", "name", "parent")

    def __init__(self, layer: Layer, parent: "Real | None", name: bytes) -> None:
        self.layer = layer
        self.parent = parent
        self.name = name
        self.fd = -1

    def __repr__(self) -> str:
        return f"Real({self.layer.position}, {os.fsdecode(self.layer_path())!r})"

    @classmethod
    def nameless(cls, layer: Layer, name: bytes, fd: int) -> "Real":
        """An inode that never had a name, which `fd` has open; with a descriptor of its own."""
        real = cls(layer, None, name)
        real.fd = os.open(b"/proc/self/fd/%d" % fd, O_INODE & ~os.O_NOFOLLOW)
        layer.held.count += 1
        return real

    def child(self, name: bytes) -> "Real":
        """The entry `name` of this directory; nothing is opened."""
        return Real(self.layer, self, name)

    def dir_fd(self) -> int:
        """This directory's descriptor, opened when it is not; owned by the layer's cache. However deep it
        lies, one descriptor is enough.
        """
        if self.fd >= 0:
            return self.fd
        parent = self.parent
        if parent is not None and parent.fd >= 0:
            self.fd = as_owner.open_at(parent.fd, self.name, O_DIRFD)
        else:
            self.fd = self._open_from_afar()
        self.layer.fds.add(self)
        return self.fd

    def _open_from_afar(self) -> int:
        """Open it from the nearest directory above that is open, without opening those between."""
        names: list[bytes] = []
        real: Real | None = self
        while real is not None and real.fd < 0:
            names.append(real.name)
            real = real.parent
        if real is None:
            raise FileNotFoundError(2, "No such file or directory")
        fd, passed = real.fd, -1
        try:
            while names:
                path = names.pop()
                while names and len(path) + len(names[-1]) < _LONGEST_PATH:
                    path += b"/" + names.pop()
                fd = as_owner.open_beneath(fd, path, O_DIRFD)
                if passed >= 0:
                    os.close(passed)
                passed = fd if names else -1
        except BaseException:
            if passed >= 0:
                os.close(passed)
            raise
        return fd

    def close_fd(self) -> None:
        """Close the descriptor, which is opened again when needed; for the cache."""
        os.close(self.fd)
        self.fd = -1

    def stat(self) -> os.stat_result:
        """lstat of this entry; by its own descriptor where it has one, which is quicker."""
        parent = self.parent
        if self.fd >= 0 or parent is None:
            return os.fstat(self.fd)
        fd = parent.fd
        return as_owner.stat_at(fd if fd >= 0 else parent.dir_fd(), self.name)

    def proc_path(self) -> tuple[bytes, bool]:
        """(path, follow_symlinks) for the calls that take no directory descriptor, such as xattrs."""
        parent = self.parent
        if parent is None:
            return b"/proc/self/fd/%d" % self.fd, True
        return b"/proc/self/fd/%d/%s" % (parent.dir_fd(), self.name), False

    def at(self) -> tuple[int, bytes]:
        """(dir_fd, name) for the *at calls; the name is empty when the descriptor is the inode itself."""
        parent = self.parent
        if parent is None:
            return self.fd, b""
        return parent.dir_fd(), self.name

    def open(self, flags: int) -> int:
        """Open the file itself; the caller owns the descriptor. Never follows a symlink, never blocks on
        a fifo.
        """
        return as_owner.open_at(*self.at(), flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)

    def open_dir(self) -> int:
        """A readable descriptor of this directory; the caller owns it."""
        flags, dir_fd = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, self.dir_fd()
        if self.layer.noatime:
            try:
                return as_owner.open_at(dir_fd, b".", flags | os.O_NOATIME)
            except PermissionError:  # not ours: O_NOATIME is for owners
                pass
        return as_owner.open_at(dir_fd, b".", flags)

    def readlink(self) -> bytes:
        """The symlink's target."""
        return as_owner.readlink_at(*self.at())

    def chown(self, uid: int, gid: int) -> None:
        """lchown; -1 leaves an id alone."""
        if self.parent is None:
            os.chown(b"/proc/self/fd/%d" % self.fd, uid, gid)
        else:
            os.chown(self.name, uid, gid, dir_fd=self.parent.dir_fd(), follow_symlinks=False)

    def link(self, directory: "Real", name: bytes) -> None:
        """Make `name` in `directory` a further link of this inode, which may have lost its own name."""
        target_fd = directory.dir_fd()
        if self.parent is None:
            os.link(b"/proc/self/fd/%d" % self.fd, name, dst_dir_fd=target_fd, follow_symlinks=True)
        else:
            source_fd = self.parent.dir_fd()
            os.link(self.name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def detach(self, open_fd: int = -1) -> None:
        """Keep the inode reachable by descriptor: its name is about to go. The owner closes `fd` by
        `drop`. `open_fd`: another descriptor of it, if there is one, which is duplicated.
        """
        if self.parent is None:
            return
        if self.fd >= 0:
            self.layer.fds.remove(self)
        elif open_fd >= 0:  # quicker than by name
            self.fd = os.dup(open_fd)
        else:
            self.fd = as_owner.open_at(self.parent.dir_fd(), self.name, O_INODE)
        self.parent = None
        self.layer.held.count += 1

    def drop(self) -> None:
        """Close what `dir_fd` or `detach` opened; a layer's root stays open."""
        if self.fd < 0 or self is self.layer.root:
            return
        if self.parent is None:
            self.close_fd()
            self.layer.held.count -= 1
        else:
            self.layer.fds.close(self)

    def layer_path(self) -> bytes:
        """The path from the layer's root, for messages and redirects: ``/a/b``."""
        parts: list[bytes] = []
        real: Real | None = self
        while real is not None and real.parent is not None:
            parts.append(real.name)
            real = real.parent
        return b"/" + b"/".join(reversed(parts))


def is_whiteout_device(st: os.stat_result) -> bool:
    """The kernel's whiteout: a character device 0:0."""
    return st.st_rdev == 0 and stat.S_ISCHR(st.st_mode)
