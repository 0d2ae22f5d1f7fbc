"""Incomplete downloads: ``partial/<hex>``, kept so that the next attempt continues from there.

The process that downloads a blob locks its partial, so that two processes never download the same blob: the
second waits, then finds it in the store. The bytes are not trusted until all of them have the right digest
and size; then the partial becomes the blob by fsync and rename. The directory exists only while it is needed.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.digest import Hasher
from layerstore.errors import DigestMismatch
from layerstore.model import Descriptor
from layerstore.store import blobs, places
from layerstore.store.removing import remove
from layerstore.store.store import Store

_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
EXPIRY = 7 * 86400.0  # seconds after which an unused partial is removed


def directory(store: Store) -> Path:
    return store.root / "partial"


class Partial:
    """A blob that is being downloaded: `size` bytes of it are here. Made by `resume`, which owns the
    descriptor.
    """

    def __init__(self, path: Path, fd: int, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.published = False
        self._path, self._fd = path, fd
        self._hasher = Hasher()
        self._digest_what_is_there()

    @property
    def size(self) -> int:
        return self._hasher.size

    def append(self, data: bytes) -> None:
        """Append the next bytes; DigestMismatch when the blob has fewer."""
        if self.size + len(data) > self.descriptor.size:
            raise DigestMismatch(
                f"blob {self.descriptor.digest}: longer than the {self.descriptor.size} bytes it should have"
            )
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._hasher.update(data)

    def restart(self) -> None:
        """Drop all bytes."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher = Hasher()

    def publish(self, store: Store) -> None:
        """Make it the blob. DigestMismatch when the bytes do not match the descriptor; then they are
        dropped.
        """
        found, size = self._hasher.digest(), self.size
        if (found, size) != (self.descriptor.digest, self.descriptor.size):
            self.restart()
            raise DigestMismatch(
                f"blob {self.descriptor.digest}: the content's digest is {found}"
                if size == self.descriptor.size
                else f"blob {self.descriptor.digest}: {size} bytes instead of {self.descriptor.size}"
            )
        with open(self._fd, "r+b", buffering=0, closefd=False) as file:
            blobs.BlobTemp(file, self._path, store.blobs).publish(found, size)
        self.published = True

    def _digest_what_is_there(self) -> None:
        if os.fstat(self._fd).st_size > self.descriptor.size:
            self.restart()
        while data := os.read(self._fd, _CHUNK):
            self._hasher.update(data)


@contextmanager
def resume(store: Store, descriptor: Descriptor) -> Iterator[Partial | None]:
    """Continue a download or start one; wait for another process that has it. Yields None when the blob is in
    the store.

    Bytes that were not published at the end are kept for the next attempt.
    """
    opened = _open(store, descriptor)
    if opened is None:
        yield None
        return
    path, fd = opened
    try:
        partial = Partial(path, fd, descriptor)
        try:
            yield partial
        finally:
            if not partial.published and partial.size == 0:
                remove(path)
    finally:
        os.close(fd)
        _remove_if_empty(store)


def kept(store: Store, descriptor: Descriptor) -> int:
    """Return how many bytes of a blob an earlier attempt left."""
    try:
        return (directory(store) / descriptor.digest.hex).lstat().st_size
    except FileNotFoundError:
        return 0


def sweep(store: Store, *, older_than: float = 0.0) -> int:
    """Remove unlocked partials that were not touched for so long; return the bytes freed."""
    freed = 0
    try:
        names = [name for name in os.listdir(directory(store)) if _HEX.fullmatch(name)]
    except FileNotFoundError:
        return 0
    for name in names:
        path = directory(store) / name
        with suppress(OSError):  # gone, in use, or not a file of ours
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(fd)
                expired = time.time() - status.st_mtime >= older_than and _is_still(path, fd)
                if expired and remove(path) is None:
                    freed += status.st_size
            finally:
                os.close(fd)
    _remove_if_empty(store)
    return freed


def _open(store: Store, descriptor: Descriptor) -> tuple[Path, int] | None:
    """Return the partial's path and its locked fd, which the caller owns; None when the blob is in the
    store.
    """
    path = directory(store) / descriptor.digest.hex
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while not blobs.is_present(store, descriptor):
        places.make_directory(directory(store))
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            continue  # the last user of the directory has just removed it
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_still(path, fd):
            return path, fd
        os.close(fd)  # the other process finished it, or gave it up
    return None


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove_if_empty(store: Store) -> None:
    with suppress(OSError):
        directory(store).rmdir()
