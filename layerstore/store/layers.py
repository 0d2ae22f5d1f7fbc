"""Unpacked layers: ``layers/<diffID>/``, read-only, the lowerdirs of every mount.

A layer is unpacked beside its final place, made durable, then renamed: it is there whole or not at all.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import limits
from layerstore.digest import Digest, Readable
from layerstore.errors import DigestMismatch
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, locking
from layerstore.store.store import Store
from overlayfs_py.syscalls.attrs import syncfs

if TYPE_CHECKING:
    from layerstore.layer.apply import ApplyResult

Progress = Callable[[int], None]
Note = Callable[[str], None]

_PROBE = b"trusted.layerstore.probe"


def path_of(store: Store, diff_id: Digest) -> Path:
    """Where a layer lies once it is unpacked."""
    return store.layers / diff_id.hex


def uses_userxattr(store: Store) -> bool:
    """Whether overlay marks must be ``user.overlay.*`` here: only the real root may set ``trusted.``."""
    if os.geteuid() != 0:
        return True
    fd = os.memfd_create(
        "probe"
    )  # the kernel asks who we are, not where: the store may be read-only, or full
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
    """Unpack what is not unpacked yet of an image's layers (bottom first); their directories, topmost
    first.
    """
    lowers: list[Path] = []
    for descriptor, diff_id in layers:
        place = path_of(store, diff_id)
        if not place.is_dir():
            # Whoever comes second waits on the blob and then finds the layer in place.
            with locking.locked(blobs.path_of(store, descriptor.digest)):
                if not place.is_dir():
                    _unpack_one(store, descriptor, diff_id, lowers, progress, note)
        lowers.insert(0, place)
    return lowers


def _unpack_one(
    store: Store,
    descriptor: Descriptor,
    diff_id: Digest,
    lowers: Sequence[Path],
    progress: Progress | None,
    note: Note,
) -> None:
    with store.temp_dir(store.layers) as (temp, fd), blobs.open_blob(store, descriptor) as stream:
        result = apply(store, stream, fd, lowers=lowers, progress=progress)
        stream.verify()
        if result.diff_id != diff_id:
            raise DigestMismatch(
                f"layer {descriptor.digest}: its diffID is {result.diff_id} instead of {diff_id}"
            )
        publish(store, temp, fd, diff_id)
    for line in result.notes:
        note(line)


def apply(
    store: Store,
    stream: Readable,
    dest_fd: int,
    *,
    lowers: Sequence[Path] = (),
    progress: Progress | None = None,
) -> "ApplyResult":
    """Unpack a layer tar into a temporary directory, with as many rights as this process has."""
    from layerstore.layer.apply import apply_layer  # a tenth of a commit's start, which unpacks nothing

    return apply_layer(
        stream,
        dest_fd,
        lowers=[os.fsencode(path) for path in lowers],
        limits=limits.current(),
        privileged=os.geteuid() == 0,
        userxattr=uses_userxattr(store),
        progress=progress,
    )


def publish(store: Store, temp: Path, fd: int, diff_id: Digest) -> None:
    """Make an unpacked layer durable and give it its name; one that is already there wins."""
    syncfs(fd)
    try:
        os.rename(temp, path_of(store, diff_id))
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
    durable.fsync_dir(store.layers)
