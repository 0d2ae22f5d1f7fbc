"""Find or make directories inside the tree being unpacked, and never leave it.

Symlinks of this layer or of one below are followed as *parents*, by this module and inside the root, as in a
chroot: packages for merged-/usr systems need that. As the last component they are never followed. The kernel
only gets paths in which it must not follow symlinks (openat2 RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH), so a
process that swaps a directory for a symlink meanwhile causes an error, not a write outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable

from layerstore.errors import InvalidLayer
from layerstore.layer import whiteout
from layerstore.limits import Limits
from overlayfs_py.syscalls.openat import open_beneath
from overlayfs_py.syscalls.trees import remove_tree

_O_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRS = 64
_MOST_LINKS = 40  # the kernel's own limit
_MOST_STEPS = 4096
_MOST_COMPONENT = 255
_MOST_PATH = 4095

Missing = Callable[[int, bytes, bytes, bool, bool], bytes | None]


def clean_path(name: bytes, limits: Limits, entry: bytes | None = None) -> bytes:
    """Return an archive's name as a path below the root, without a slash at either end; ``b""`` is the root.

    Absolute names mean below the root, as for every unpacker of layers. Raises InvalidLayer, naming `entry`
    or else the name itself, for an impossible name and for ``..``, even where it would stay inside: no writer
    makes such names.
    """
    entry = name if entry is None else entry
    if not name or b"\0" in name:
        raise InvalidLayer("an empty name" if not name else "a name with a NUL in it", entry)
    if len(name) > limits.max_name:
        raise InvalidLayer(f"a name of {len(name)} bytes", entry[:200])
    if len(name) <= _MOST_COMPONENT and _is_clean(name):  # nearly every name of nearly every layer
        return name
    steps = [step for step in name.split(b"/") if step not in (b"", b".")]
    if b".." in steps:
        raise InvalidLayer("a name with '..' in it", entry)
    if any(len(step) > _MOST_COMPONENT for step in steps):
        raise InvalidLayer(f"a component of more than {_MOST_COMPONENT} bytes in its name", entry[:300])
    return b"/".join(steps)


def _is_clean(name: bytes) -> bool:
    """Return whether no component is empty or begins with a dot, so that the name can be used as it is."""
    return name[0] not in b"/." and name[-1] != b"/"[0] and b"/." not in name and b"//" not in name


class NotADirectory(Exception):
    """A component of a path is not a directory; `what` is its path."""

    def __init__(self, what: bytes) -> None:
        self.what = what


class RootDir:
    """The root being unpacked into. Owns descriptors of directories below it, not `fd` itself.

    `missing(dir_fd, name, path, make, replaces_whiteout)` is called for a directory that does not exist. It
    makes it and returns None, or returns the target of the symlink that the layers below have there. Without
    `make` it only makes a stand-in for a directory below, else it raises FileNotFoundError.
    """

    def __init__(self, fd: int, missing: Missing) -> None:
        self.fd = fd
        self._missing = missing
        self._open: dict[bytes, int] = {}

    def close(self) -> None:
        """Close all descriptors; idempotent."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def forget(self, path: bytes) -> None:
        """Drop the directory `path`, which is about to be removed, and all below it from the cache."""
        below = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(known))

    def directory(self, path: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """Return (descriptor, path without symlinks) of the directory `path`, making what is missing.

        Without `make` only stand-ins for directories below are made. The descriptor belongs to this object
        and is valid until the next call. Raises NotADirectory, and FileNotFoundError for what was not made.
        """
        fd = self.existing(path)
        return self._walk(path, make) if fd is None else (fd, path)

    def existing(self, path: bytes) -> int | None:
        """Return an existing directory's descriptor, as `directory` does; None: missing, or via a symlink."""
        fd = self._known(path)
        if fd is None:
            try:
                fd = self._remember(path, open_beneath(self.fd, path, _O_DIR))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                    raise
        return fd

    def _known(self, path: bytes) -> int | None:
        return self._open.get(path) if path else self.fd

    def _remember(self, path: bytes, fd: int) -> int:
        if len(self._open) >= _OPEN_DIRS:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd
        return fd

    def _walk(self, path: bytes, make: bool) -> tuple[int, bytes]:
        """Walk component by component, following symlinks inside the root."""
        steps = deque(path.split(b"/"))
        place = _Position(self.fd)
        links = taken = 0
        try:
            while steps:
                step = steps.popleft()
                taken += 1
                if taken > _MOST_STEPS or links > _MOST_LINKS:
                    raise InvalidLayer("too many symlinks or components in its name", path[:300])
                if step in (b"", b"."):
                    continue
                if step == b"..":
                    place.leave()
                    continue
                target = self._step(place, step, make)
                if target is None:
                    place.enter(step)
                    continue
                links += 1
                if target.startswith(b"/"):
                    place.restart()
                steps.extendleft(reversed(target.split(b"/")))
            here = place.path
            fd = self._known(here)
            return (self._remember(here, place.release()) if fd is None else fd), here
        finally:
            place.close()

    def _step(self, place: _Position, name: bytes, make: bool) -> bytes | None:
        """Make sure that `name` is a directory; returns the target when it is a symlink, here or below."""
        dir_fd = place.fd
        try:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return self._missing(dir_fd, name, place.below(name), make, False)
        if stat.S_ISDIR(st.st_mode):
            return None
        if stat.S_ISLNK(st.st_mode):
            return os.readlink(name, dir_fd=dir_fd)
        if not make or not whiteout.is_whiteout_device(st):
            raise NotADirectory(place.below(name))
        os.unlink(name, dir_fd=dir_fd)
        return self._missing(dir_fd, name, place.below(name), True, True)


class _Position:
    """Where a walk is: a descriptor, and the components that lead there, none of them a symlink."""

    def __init__(self, root_fd: int) -> None:
        self.fd = self._root_fd = root_fd
        self._steps: list[bytes] = []
        self._length = 0  # of the path

    @property
    def path(self) -> bytes:
        return b"/".join(self._steps)

    def below(self, name: bytes) -> bytes:
        return b"/".join((*self._steps, name))

    def enter(self, name: bytes) -> None:
        """Go one down. Refuses a path that symlinks make too long, since it could not be opened again."""
        if self._length + len(name) >= _MOST_PATH:
            raise InvalidLayer(
                f"a path that symlinks make longer than {_MOST_PATH} bytes", self.below(name)[:300]
            )
        self._move(os.open(name, _O_DIR, dir_fd=self.fd))
        self._steps.append(name)
        self._length += len(name) + 1

    def leave(self) -> None:
        """Go one up; at the root, stay. Not by "..", which leads elsewhere when a directory was moved."""
        if self._steps:
            self._length -= len(self._steps.pop()) + 1
        self._move(open_beneath(self._root_fd, self.path, _O_DIR) if self._steps else self._root_fd)

    def restart(self) -> None:
        """Go back to the root."""
        self._steps.clear()
        self._length = 0
        self._move(self._root_fd)

    def _move(self, fd: int) -> None:
        self.close()
        self.fd = fd

    def release(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        fd, self.fd = self.fd, self._root_fd
        return fd

    def close(self) -> None:
        if self.fd != self._root_fd:
            os.close(self.fd)
            self.fd = self._root_fd


def remove(dir_fd: int, name: bytes) -> None:
    """Remove `name`, be it a tree of any depth, without following a symlink."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        remove_tree(name, dir_fd=dir_fd)
