"""Read an image archive, compressed or not, in one pass: every file in it becomes a blob of the store.

Names in the archive never become paths: they are keys of a table, and a link must name a key. `oci_archive`
and `docker_archive` know what the files mean; the caller removes blobs that no image needs afterwards
(`Archive.added`).
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from layerstore.digest import Digest, Hasher, Readable
from layerstore.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidImage,
    InvalidLayer,
    LimitExceeded,
    printable,
)
from layerstore.layer.tar.decode import TarReader
from layerstore.layer.tar.decompress import LayerReader
from layerstore.layer.tar.entry import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry
from layerstore.layer.tar.readahead import TarStream
from layerstore.limits import Limits, current
from layerstore.model import Descriptor
from layerstore.store import blobs
from layerstore.store.store import Store

_MAX_LINKS = 8  # in a row
_BLOB = re.compile(r"blobs/([^/]+)/([^/]+)")
# What docker before 25 wrote beside each layer for older versions, and is not read any more.
_NEEDLESS = re.compile(r"[^/]+/(VERSION|json)|repositories")


@dataclass(slots=True)
class Archive:
    """The files of an archive, by name. `added`: the blobs that were not in the store before."""

    store: Store
    added: set[Digest] = field(default_factory=set)
    _files: dict[str, Descriptor] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)

    def document(self, name: str, *, is_index_file: bool = False) -> bytes | None:
        """Return a small file of the archive; None when it is missing, InvalidImage when it is a link."""
        if name in self._links:
            raise InvalidImage(f"invalid archive: {name} is a link")
        found = self._files.get(name)
        return None if found is None else blobs.read_blob(self.store, found, is_index_file=is_index_file)

    def file(self, name: str) -> Descriptor:
        """Return digest and size of a file that a document of the archive names; links within it are
        followed.
        """
        path = _normal(name, name)
        for _ in range(_MAX_LINKS):
            if path in self._files:
                return self._files[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidImage(f"invalid archive: {_shown(name)} is missing")

    def take(self, entry: Entry, members: TarReader) -> None:
        """Add one member, with its content from `members`."""
        name = _normal(entry.name.decode("utf-8", "surrogateescape"), entry.name)
        if entry.kind == DIRECTORY or _NEEDLESS.fullmatch(name):
            return
        expected = _digest_in(name)
        if entry.kind in {SYMLINK, HARD_LINK}:
            if expected is not None:
                raise InvalidImage(f"invalid archive: the blob {_shown(name)} is a link")
            self._link(name, entry)
            return
        if entry.kind != REGULAR or entry.extents is not None:
            raise InvalidImage(f"invalid archive: {_shown(name)} is not an ordinary file")
        found = self._keep(entry, members, expected)
        if self._files.setdefault(name, found) != found:
            raise InvalidImage(f"invalid archive: {_shown(name)} occurs twice, with different contents")

    def _link(self, name: str, entry: Entry) -> None:
        target = entry.linkname.decode("utf-8", "surrogateescape")
        if entry.kind == SYMLINK:
            if target.startswith("/"):
                raise InvalidImage(f"invalid archive: the link {_shown(name)} points outside of it")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        self._links[name] = _normal(target, entry.name)

    def _keep(self, entry: Entry, members: TarReader, expected: Digest | None) -> Descriptor:
        hasher = Hasher()
        known = expected is not None and blobs.is_present(
            self.store, Descriptor(media_type="", digest=expected, size=entry.size)
        )
        with blobs.new_blob(self.store) as blob:
            for piece in members.data(entry):
                hasher.update(piece)
                if not known:
                    blob.write(piece)
            found = Descriptor(media_type="", digest=hasher.digest(), size=hasher.size)
            if expected is not None and found.digest != expected:
                raise DigestMismatch(f"blob {expected}: the content's digest is {found.digest}")
            if not blobs.is_present(self.store, found):
                self.added.add(found.digest)  # first: a signal may come as soon as the blob is there
                blob.publish(found.digest, found.size)
        return found


def read(
    archive: Archive,
    stream: Readable,
    *,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fill `archive` from a tar; call with `Store.writing` held. InvalidImage for an incomplete archive.

    Calls `progress` with the number of bytes read from `stream`.
    """
    limits = limits or current()
    limits = dataclasses.replace(limits, max_entries=min(limits.max_entries, limits.max_members))
    reader = LayerReader(stream, limits)
    report = None if progress is None else lambda _tar_bytes: progress(reader.compressed_size)
    try:
        with TarStream(reader, report) as tar:
            members = TarReader(tar, limits)
            for entry in members:
                archive.take(entry, members)
            tar.drain()
    except InvalidLayer as error:
        where = "" if error.path is None else f"{printable(error.path[:200])}: "
        raise InvalidImage(f"invalid archive: {where}{error.why}") from None
    except LimitExceeded as error:
        limit = "members" if error.limit == "entries" else error.limit
        raise LimitExceeded(error.what.replace("the layer", "the archive"), limit) from None


def _normal(name: str, shown: str | bytes) -> str:
    """Return a name without ``.`` and doubled slashes; InvalidImage for one that points outside."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise InvalidImage(f"invalid archive: the name {_shown(shown)} points outside of it")
    return "/".join(parts)


def _digest_in(name: str) -> Digest | None:
    """Return the digest in the name of a blob; InvalidImage when it is invalid."""
    found = _BLOB.fullmatch(name)
    if found is None:
        return None
    try:
        return Digest(f"{found[1]}:{found[2]}")
    except InvalidDigest as error:
        raise InvalidImage(f"invalid archive: {error}") from None


def _shown(name: str | bytes) -> str:
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return printable(raw[:200])
