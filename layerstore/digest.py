"""Content digests: the validated value, and streams that compute or check one on the way.

A `Digest` is always ``sha256:`` and 64 lower-case hexadecimal digits, so it is safe in a path; anything
else is refused before it is used. Other algorithms of the OCI grammar are refused, too: no registry client
writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import IO, Protocol

from layerstore.errors import DigestMismatch, InvalidDigest

_GRAMMAR = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Readable(Protocol):
    """What each stage of a read pipeline needs of the stage before it."""

    def read(self, size: int = -1, /) -> bytes: ...


class Digest(str):
    """``sha256:<64 lower-case hex digits>``; raises InvalidDigest for any other text."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not isinstance(text, str) or _GRAMMAR.fullmatch(text) is None:
            shown = repr(text) if len(repr(text)) <= 120 else repr(text)[:117] + "..."
            raise InvalidDigest(f"not a sha256 digest: {shown}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the digest of these bytes."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 digits alone: the file name below ``blobs/sha256``."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first twelve digits, as docker's listings show them."""
        return self[7:19]


def chain_ids(diff_ids: Iterable[Digest]) -> Iterator[tuple[Digest, Digest]]:
    """Yield each diffID, bottom first, with the chainID of the stack up to it (image-spec, config.md)."""
    chain_id = None
    for diff_id in diff_ids:
        chain_id = diff_id if chain_id is None else Digest.of(f"{chain_id} {diff_id}".encode())
        yield diff_id, chain_id


class Hasher:
    """Counts and digests the bytes that are written to it."""

    __slots__ = ("_sha", "size")

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        self._sha.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        return Digest("sha256:" + self._sha.hexdigest())


class HashingWriter:
    """Passes bytes on to `out` and digests them; does not own `out`."""

    __slots__ = ("_out", "hasher")

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.hasher = Hasher()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, also to a raw file that takes less at a time."""
        view = memoryview(data)
        while view:
            written = self._out.write(view)
            view = view[written:]
        self.hasher.update(data)
        return len(data)

    @property
    def size(self) -> int:
        return self.hasher.size

    def digest(self) -> Digest:
        return self.hasher.digest()


class VerifyingReader:
    """Reads `source` and checks its digest *and* its exact size; does not own `source`.

    The read that reaches the end, or the first byte too many, raises DigestMismatch, so a reader that reads
    to the end cannot miss it. One that stops early calls `verify()`, which reads the rest.
    """

    __slots__ = ("_hasher", "_source", "_verified", "digest", "size")

    def __init__(self, source: Readable, digest: Digest, size: int) -> None:
        if size < 0:
            raise DigestMismatch(f"blob {digest}: a size of {size} is impossible")
        self._source = source
        self._hasher = Hasher()
        self._verified = False
        self.digest = digest
        self.size = size

    def read(self, size: int = -1, /) -> bytes:
        left = self.size - self._hasher.size
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if size == 0 or self._verified:
            return b""
        data = self._source.read(min(size, left + 1))
        if len(data) > left:
            raise DigestMismatch(f"blob {self.digest}: longer than the {self.size} bytes it should have")
        self._hasher.update(data)
        if not data:
            self._finish()
        return data

    def verify(self) -> None:
        """Read the rest and check it; idempotent."""
        while self.read(1 << 20):
            pass

    def _finish(self) -> None:
        if self._hasher.size != self.size:
            raise DigestMismatch(f"blob {self.digest}: {self._hasher.size} bytes instead of {self.size}")
        found = self._hasher.digest()
        if found != self.digest:
            raise DigestMismatch(f"blob {self.digest}: the content's digest is {found}")
        self._verified = True
