"""Unpacked layers: the directories in ``layers/``, read-only, the lowerdirs of every mount.

A layer is unpacked under a temporary name, made durable, then renamed: it is there whole or not at all.
`layernames` decides its name.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import limits
from layerstore.callbacks import Note, Progress
from layerstore.digest import Digest, Readable
from layerstore.errors import DigestMismatch
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, locking, treecheck
from layerstore.store.layernames import Place, places_of
from layerstore.store.store import Store
from overlayfs_py.syscalls.attrs import syncfs

if TYPE_CHECKING:
    from layerstore.layer.unpack.apply import ApplyResult


_PROBE = b"trusted.layerstore.probe"
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def uses_userxattr(store: Store) -> bool:
    """Whether overlay marks must be ``user.overlay.*`` here: only the real root may set ``trusted.*``."""
    if os.geteuid() != 0:
        return True
    # Tried on a memory file: the privilege decides, not the file system, and the store may be read-only or
    # full.
    fd = os.memfd_create("probe")
    try:
        os.setxattr(fd, _PROBE, b"")
    except PermissionError:
        return True
    except OSError:  # a kernel whose memory files have no xattrs
        pass
    finally:
        os.close(fd)
    return False


def unpack(
    store: Store, layers: Sequence[tuple[Descriptor, Digest]], *, progress: Progress | None = None, note: Note
) -> list[Path]:
    """Unpack those of an image's layers (bottom first) that are not unpacked yet; return the directories of
    all, topmost first.
    """
    lowers: list[Path] = []
    places = places_of(diff_id for _, diff_id in layers)
    for (descriptor, _), place in zip(layers, places, strict=True):
        path = place.find(store)
        if path is None:
            # A second process waits on the blob and then finds the layer in place.
            with locking.locked(blobs.path_of(store, descriptor.digest)):
                path = place.find(store) or _unpack_one(store, descriptor, place, lowers, progress, note)
        lowers.insert(0, path)
    return lowers


def are_unpacked(store: Store, diff_ids: Iterable[Digest]) -> bool:
    """Whether all layers of an image (bottom first) are unpacked."""
    return all(place.find(store) for place in places_of(diff_ids))


def _unpack_one(
    store: Store,
    descriptor: Descriptor,
    place: Place,
    lowers: Sequence[Path],
    progress: Progress | None,
    note: Note,
) -> Path:
    with store.temp_dir(store.layers) as (temp, fd), blobs.open_blob(store, descriptor) as stream:
        result = apply(store, stream, fd, lowers=lowers, progress=progress)
        stream.verify()
        if result.diff_id != place.diff_id:
            raise DigestMismatch(
                f"layer {descriptor.digest}: its diffID is {result.diff_id} instead of {place.diff_id}"
            )
        path = publish(store, temp, fd, place, depends=result.depends)
    for line in result.notes:
        note(line)
    return path


def apply(
    store: Store,
    stream: Readable,
    dest_fd: int,
    *,
    lowers: Sequence[Path] = (),
    progress: Progress | None = None,
) -> "ApplyResult":
    """Unpack a layer tar into a temporary directory, with all privileges that this process has."""
    from layerstore.layer.unpack.apply import (
        apply_layer,  # a tenth of a commit's start, which unpacks nothing
    )

    return apply_layer(
        stream,
        dest_fd,
        lowers=[os.fsencode(path) for path in lowers],
        limits=limits.current(),
        privileged=os.geteuid() == 0,
        userxattr=uses_userxattr(store),
        progress=progress,
    )


def publish(store: Store, temp: Path, fd: int, place: Place, *, depends: bool) -> Path:
    """Make an unpacked layer durable, give it its name and return that; a layer that is already there stays.

    So does the same layer of an older store that was set aside: the inodes of workspaces refer to it.
    """
    syncfs(fd)
    path = store.layers / (place.own if depends else place.shared)
    if not (_is_same(store.layers / place.old, fd) and _take_place(store.layers / place.old, path)):
        _take_place(temp, path)
    durable.fsync_dir(store.layers)
    return path


def _is_same(old: Path, fd: int) -> bool:
    """Whether `path` exists and is the directory of `fd`."""
    try:
        old_fd = os.open(old, _DIR)
    except FileNotFoundError:
        return False
    try:
        return treecheck.first_difference(old_fd, fd) is None
    except FileNotFoundError:  # swept meanwhile
        return False
    finally:
        os.close(old_fd)


def _take_place(source: Path, path: Path) -> bool:
    """Rename a directory; False when it is gone. A directory that has the name already stays."""
    try:
        os.rename(source, path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
    return True
