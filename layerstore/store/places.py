"""The directories and files of a store: their owner, and who else may read them.

All are for the owner alone (0700), whatever the umask, as images hold secrets and set-uid programs of other
systems. The modes of the root, of ``oci/`` and of the directories in it decide who else may read the images:
new files follow them.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerstore.errors import LayerstoreError

_PRIVATE = ("layers", "workspaces", "partial")  # private also where others may read the images
_BLOBS = "oci/blobs/sha256"
_IMAGES = ("oci", "oci/blobs", _BLOBS)
_DOCUMENTS = ("oci/index.json", "oci/oci-layout")
_OTHERS_WRITE, _OTHERS = 0o022, 0o077
_FORMER_ROOT = 0o711  # of stores of earlier versions, in which everyone could read oci/


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory with exactly that mode, unless it exists."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)


def make_root(root: Path) -> None:
    """Make the store's directory and missing ones above it, writable to the owner only."""
    for parent in [*root.parents][::-1]:
        if not parent.exists():
            parent.mkdir(mode=0o755, exist_ok=True)
    make_directory(root)


def check(root: Path) -> None:
    """Raise LayerstoreError when a part of the store is a symbolic link or another user's, or when other
    users may write to the directory of a new one.
    """
    for path, status in _parts(root, ("", *_IMAGES, *_PRIVATE, *_DOCUMENTS)):
        if stat.S_ISLNK(status.st_mode):
            remedy = ": give the path that it points to" if path == root else ""
            raise LayerstoreError(f"{path} is a symbolic link; no part of a store may be one{remedy}")
        if status.st_uid != os.geteuid():
            raise LayerstoreError(
                f"{path} belongs to user {status.st_uid}, and only the owner may use a store: "
                "run as that user, or chown it if you trust its content"
            )
        exchanged = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        if path == root and exchanged and not is_store(root) and any(root.iterdir()):
            raise LayerstoreError(
                f"other users may write to {root}, and it is not empty: use a new directory in it"
            )


def is_store(root: Path) -> bool:
    """Whether the directory holds anything of a store, complete or not."""
    try:
        os.lstat(root / "oci")
    except FileNotFoundError:
        return False
    return True


def close_to_others(root: Path) -> None:
    """Remove permissions that other users may not have in any store: to write, and to read unpacked layers. A
    store of an earlier version gets the modes of a new one.
    """
    for path, status in _parts(root, ("", *_IMAGES, *_PRIVATE, *_DOCUMENTS)):
        mode = stat.S_IMODE(status.st_mode)
        if path == root:
            wanted = mode if mode & stat.S_ISVTX else 0o700 if mode == _FORMER_ROOT else mode & ~_OTHERS_WRITE
        else:
            wanted = mode & ~(_OTHERS if path.name in _PRIVATE else _OTHERS_WRITE)
        if wanted != mode:
            path.chmod(wanted)
            if path == root / _BLOBS:  # others could write there, and so perhaps to the blobs
                for blob, status in _parts(path, os.listdir(path)):
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                        blob.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)


def open_to_others(root: Path) -> None:
    """Make the images readable to everyone, now and later."""
    for path, status in _parts(root, ("", *_IMAGES)):
        path.chmod(stat.S_IMODE(status.st_mode) | 0o055)
    for path in (*(root / name for name in _DOCUMENTS), *(root / _BLOBS).iterdir()):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


def _parts(root: Path, names: Iterable[str]) -> Iterator[tuple[Path, os.stat_result]]:
    for name in names:
        path = root / name
        try:
            yield path, path.lstat()
        except FileNotFoundError:
            continue
