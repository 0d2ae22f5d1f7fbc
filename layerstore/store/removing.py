"""Remove parts of the store, without harm to the rest and never inside a mount."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from layerstore.errors import InUse
from overlayfs_py.syscalls.mount import mount_table
from overlayfs_py.syscalls.trees import remove_file, remove_tree


def remove(path: Path) -> OSError | None:
    """Remove a file or a tree as far as possible; return why and where some of it stays. Idempotent."""
    try:
        if path.is_dir() and not path.is_symlink():
            remove_tree(os.fsencode(path))
        else:
            remove_file(os.fsencode(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        for place in mounts_in(path):
            return OSError(errno.EBUSY, "it is mounted: unmount it", str(place))
        inside = "" if error.filename is None else os.fsdecode(error.filename)  # a path, or a name alone
        return OSError(error.errno, error.strerror, str(path / inside))
    return None


def mounts_in(path: Path) -> Iterator[Path]:
    """Return what is mounted on a directory of the store, or below it."""
    top = Path(os.path.realpath(path))
    for record in mount_table():
        place = Path(os.fsdecode(record.mountpoint))
        if place.is_relative_to(top):
            yield place


def refuse_mounts(path: Path) -> None:
    """Raise InUse when anything is mounted in a directory that is to be changed as a whole."""
    for place in mounts_in(path):
        raise InUse(f"{place} is mounted: unmount it first")
