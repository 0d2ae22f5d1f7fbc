"""Whiteouts and opaque directories: the only converter between OCI's ``.wh.`` names and the overlay's marks.

It also decides which xattrs belong to a file and travel in a layer, and which are marks of the overlay that
held it. An overlay stores what users set in its namespaces escaped by one level (docs/decisions/0006). A
layer holds such an xattr under its own name, and unpacking escapes it again: so an overlay inside a workspace
survives a commit, and no tar can make a mark.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from layerstore.callbacks import Note
from layerstore.errors import InvalidLayer
from overlayfs_py.syscalls.xattrs import ACLS, CAPABILITY
from overlayfs_py.union import marks
from overlayfs_py.union.reading import Real, list_xattrs

PREFIX = marks.AUFS_WHITEOUT
OPAQUE_MARKER = marks.AUFS_OPAQUE
_META = marks.AUFS_META
_ESCAPE = "overlay."  # trusted.overlay.overlay.X on disk is trusted.overlay.X to users

_OVERLAYS = (marks.TRUSTED, marks.USER)
_PORTABLE = ("user.", "trusted.")
_PORTABLE_NAMES = ACLS | {CAPABILITY}

WHITEOUT_DEVICE = os.makedev(0, 0)


def namespace(userxattr: bool) -> marks.Marks:
    """Return the names of the overlay's marks in ``user.`` or else ``trusted.``."""
    return marks.Marks(marks.USER if userxattr else marks.TRUSTED)


def is_whiteout_device(st: os.stat_result) -> bool:
    """Return whether `st` is a character device 0:0, the kernel's whiteout."""
    return st.st_rdev == WHITEOUT_DEVICE and stat.S_ISCHR(st.st_mode)


def is_reserved(name: bytes) -> bool:
    """Return whether a layer would read a file of this name as a whiteout."""
    return name.startswith(PREFIX)


def has_reserved(path: bytes) -> bool:
    """Return whether a component of `path` is a reserved name."""
    return PREFIX in path and any(map(is_reserved, path.split(b"/")))


def is_metadata(name: bytes) -> bool:
    """Return whether this is a file of AUFS's own, such as ``.wh..wh.plnk``; the opaque marker is not."""
    return name.startswith(_META) and name != OPAQUE_MARKER


def whiteout_name(name: bytes) -> bytes:
    """Return the name of the entry that hides `name` in a layer."""
    return PREFIX + name


def hidden_name(name: bytes, entry: bytes) -> bytes:
    """Return what the whiteout `name` hides. Raises InvalidLayer for `entry` when that cannot be a name."""
    hidden = name[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise InvalidLayer("a whiteout without a name", entry)
    return hidden


def xattr_for_layer(name: str, own: marks.Marks, note: Note) -> str | None:
    """Return the name under which an xattr found on disk travels in a layer; None: it is left out."""
    for prefix in _OVERLAYS:
        if not name.startswith(prefix):
            continue
        inner = name[len(prefix) :]
        if inner.startswith(_ESCAPE):
            return prefix + inner[len(_ESCAPE) :]
        if name.startswith(marks.FOREIGN):
            _note_foreign(name[len(marks.FOREIGN) :], note)
            return None
        if prefix != own.prefix:
            _note_foreign(name, note)
        return None
    return _travelling(name, note)


def xattrs_of_users(real: Real, own: marks.Marks) -> Iterator[tuple[str, str]]:
    """The xattrs of a file on disk that are not marks: (name on disk, name that users see)."""
    for name in list_xattrs(real):
        shown = xattr_for_layer(name, own, lambda _line: None)
        if shown is not None:
            yield name, shown


def xattr_for_disk(name: str, note: Note) -> str | None:
    """Return the name under which an xattr found in a layer is stored on disk; None: it is left out."""
    for prefix in _OVERLAYS:
        if name.startswith(prefix):
            return prefix + _ESCAPE + name[len(prefix) :]
    return _travelling(name, note)


def _travelling(name: str, note: Note) -> str | None:
    if name.startswith(marks.FUSE_OVERLAYFS) or name in marks.OVERRIDES:
        _note_foreign(name, note)
        return None
    if name.startswith(_PORTABLE) or name in _PORTABLE_NAMES:
        return name
    note(f"left out the xattr {name}: it belongs to the machine, not to the file")
    return None


def _note_foreign(name: str, note: Note) -> None:
    note(f"left out the xattr {name}: it is another overlay's mark")
