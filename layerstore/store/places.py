"""The directories and files that a store is made of: whose they are, who else may read them.

All of it is its owner's alone (0700), whatever the umask, as images hold other systems' secrets and set-uid
programs. Who else may read the images is said by the modes of the root, of ``oci/`` and of the directories in
it, and by nothing else: what is made there later follows them.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerstore.errors import LayerstoreError

_PRIVATE = ("layers", "workspaces", "partial")  # whoever else may read the images
_BLOBS = "oci/blobs/sha256"
_IMAGES = ("oci", "oci/blobs", _BLOBS)
_DOCUMENTS = ("oci/index.json", "oci/oci-layout")
_OTHERS_WRITE, _OTHERS = 0o022, 0o077
_FORMER_ROOT = 0o711  # of every store that earlier versions made: they let everybody read what is in oci/


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, unless it is there, with just that mode."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)


def make_root(root: Path) -> None:
    """The store's own directory, and those above it, in which nobody else may write."""
    for parent in [*root.parents][::-1]:
        if not parent.exists():
            parent.mkdir(mode=0o755, exist_ok=True)
    make_directory(root)


def check(root: Path) -> None:
    """Refuse a store of which a part is a symbolic link or another user's; also a place for a new one among
    things that others may exchange.
    """
    for path, status in _parts(root, ("", *_IMAGES, *_PRIVATE, *_DOCUMENTS)):
        if stat.S_ISLNK(status.st_mode):
            remedy = ": name what it leads to" if path == root else ""
            raise LayerstoreError(f"{path} is a symbolic link, which no part of a store may be{remedy}")
        if status.st_uid != os.geteuid():
            raise LayerstoreError(
                f"{path} belongs to the user {status.st_uid}, and a store is for its owner alone: "
                "work as that user, or chown it if you trust what is in it"
            )
        exchanged = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        if path == root and exchanged and not is_store(root) and any(root.iterdir()):
            raise LayerstoreError(
                f"others may write to {root}, where other things are: name a directory in it"
            )


def is_store(root: Path) -> bool:
    """Whether anything has been put there, be it only begun."""
    try:
        os.lstat(root / "oci")
    except FileNotFoundError:
        return False
    return True


def close_to_others(root: Path) -> None:
    """Take from others what they may not do in any store: write, or read what is unpacked. A store of an
    earlier version is closed as one that is made now.
    """
    for path, status in _parts(root, ("", *_IMAGES, *_PRIVATE, *_DOCUMENTS)):
        mode = stat.S_IMODE(status.st_mode)
        if path == root:
            wanted = mode if mode & stat.S_ISVTX else 0o700 if mode == _FORMER_ROOT else mode & ~_OTHERS_WRITE
        else:
            wanted = mode & ~(_OTHERS if path.name in _PRIVATE else _OTHERS_WRITE)
        if wanted != mode:
            path.chmod(wanted)
            if path == root / _BLOBS:  # in which others could write, so perhaps in the blobs, too
                for blob, status in _parts(path, os.listdir(path)):
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                        blob.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)


def open_to_others(root: Path) -> None:
    """Let everybody read the images, now and later."""
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
