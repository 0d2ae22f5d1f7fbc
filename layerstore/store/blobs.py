"""Blobs: content under its digest. Written by temporary file, verification, fsync and rename; verified again
when read.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from layerstore.digest import Digest, Hasher, Readable, VerifyingReader
from layerstore.errors import DigestMismatch, LimitExceeded, NotFound
from layerstore.limits import current
from layerstore.model import Descriptor
from layerstore.store import durable
from layerstore.store.store import Store
from overlayfs_py.syscalls.writeback import start_writeback

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CHUNK = 1 << 20
_EAGER = 8 << 20


class _EagerFile(io.FileIO):
    """A file whose bytes are written back while more come, so that the fsync at its end has little to do."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._begun = self._end = 0

    def write(self, data: "Buffer", /) -> int:
        written = super().write(data)
        self._end += written
        if self._end - self._begun >= _EAGER:
            start_writeback(self.fileno(), self._begun, self._end - self._begun)
            self._begun = self._end
        return written


@dataclass(slots=True)
class BlobTemp:
    """A blob that is being written; invisible until `publish`. `new_blob` makes it and cleans up."""

    file: IO[bytes]  # unbuffered
    _path: Path
    _directory: Path

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def publish(self, digest: Digest, size: int) -> None:
        """Give the blob its name. The caller computed `digest` and `size` from the bytes that it wrote."""
        fd = self.file.fileno()
        written = os.fstat(fd).st_size
        if written != size:
            raise DigestMismatch(f"blob {digest}: {written} bytes were written instead of {size}")
        os.fchmod(fd, durable.mode_in(self._directory))
        os.fsync(fd)
        os.rename(self._path, self._directory / digest.hex)
        durable.fsync_dir(self._directory)


@contextmanager
def new_blob(store: Store) -> Iterator[BlobTemp]:
    """Yield a temporary blob; it is removed at the end unless it was published."""
    with store.temp_file(store.blobs) as (path, fd), _EagerFile(fd) as file:
        yield BlobTemp(file, path, store.blobs)


def put_bytes(store: Store, data: bytes) -> Digest:
    """Store a small document; return its digest."""
    digest = Digest.of(data)
    with new_blob(store) as blob:
        blob.write(data)
        blob.publish(digest, len(data))
    return digest


def path_of(store: Store, digest: Digest) -> Path:
    """Return the path of a blob, which may be missing."""
    return store.blobs / digest.hex


def is_present(store: Store, descriptor: Descriptor) -> bool:
    """Whether a regular file of the right size has the digest as its name (its content is checked when
    read).
    """
    try:
        status = path_of(store, descriptor.digest).lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == descriptor.size


@contextmanager
def open_blob(store: Store, descriptor: Descriptor) -> Iterator[VerifyingReader]:
    """Open a blob to read; reading to the end verifies it. NotFound."""
    try:
        fd = durable.open_regular(path_of(store, descriptor.digest))
    except FileNotFoundError:
        raise NotFound(f"blob {descriptor.digest} is missing from the store") from None
    with open(fd, "rb", buffering=0) as file:
        yield VerifyingReader(file, descriptor.digest, descriptor.size)


def read_blob(store: Store, descriptor: Descriptor, *, is_index_file: bool = False) -> bytes:
    """Return a whole document, verified."""
    allowed = current()
    name, most = ("index", allowed.max_index) if is_index_file else ("document", allowed.max_document)
    if descriptor.size > most:
        raise LimitExceeded(f"blob {descriptor.digest} is larger than {most} bytes", name)
    with open_blob(store, descriptor) as stream:
        return stream.read()


def digest_of(stream: Readable) -> tuple[Digest, int]:
    """Read a stream to its end; return its digest and size."""
    hasher = Hasher()
    while data := stream.read(_CHUNK):
        hasher.update(data)
    return hasher.digest(), hasher.size
