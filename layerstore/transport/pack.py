"""Write images as an archive: the image layout, which every newer tool reads, and docker's documents.

Equal images give equal bytes: names sorted, no times, no owners. Every blob is verified while it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.image.image import Image
from layerstore.layer.tar.encode import END, encode
from layerstore.layer.tar.entry import DIRECTORY, Entry, padding
from layerstore.model import Descriptor
from layerstore.reference import Reference
from layerstore.store import blobs
from layerstore.store.store import Store
from layerstore.transport import docker_archive, oci_archive

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ToPack:
    """An image to write, under these names; `image` is the one for `manifest.json`."""

    entry: Descriptor
    image: Image
    refs: tuple[Reference, ...]


def write(
    store: Store,
    chosen: Sequence[ToPack],
    out: IO[bytes],
    *,
    docker: bool,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write an archive of the images in `chosen`, each entry once. `out` is not closed."""
    contents = _blobs(store, chosen)
    total = sum(descriptor.size for descriptor in contents.values())
    for name in ("blobs/", "blobs/sha256/"):
        out.write(encode(Entry(name.encode(), kind=DIRECTORY, mode=0o755)))
    done = 0
    for digest in sorted(contents):
        done = _write_blob(store, contents[digest], out, done, total, progress)
    for name, raw in sorted(_documents(chosen, docker=docker).items()):
        out.write(_header(name, len(raw)) + raw + bytes(padding(len(raw))))
    out.write(END)


def _blobs(store: Store, chosen: Sequence[ToPack]) -> dict[Digest, Descriptor]:
    """Return all blobs of the images that the store has: of an index, some images may be missing."""
    found: dict[Digest, Descriptor] = {}
    for one in chosen:
        for document in oci_archive.documents(store, one.entry):
            needed = [document]
            if document.media_type in media.MANIFESTS:
                manifest = model.parse_manifest(blobs.read_blob(store, document), document.media_type)
                needed += [manifest.config, *manifest.layers]
            is_whole = all(blobs.is_present(store, descriptor) for descriptor in needed)
            if is_whole or document.digest == one.image.descriptor.digest:
                for descriptor in needed:
                    found.setdefault(descriptor.digest, descriptor)
    return found


def _documents(chosen: Sequence[ToPack], *, docker: bool) -> dict[str, bytes]:
    entries = [(one.entry, one.refs) for one in chosen]
    documents = {
        "index.json": oci_archive.index_document(entries, tag_only=docker),
        "oci-layout": oci_archive.LAYOUT,
    }
    if docker:
        shown = [(one.image, one.refs) for one in chosen]
        documents["manifest.json"] = docker_archive.manifest_document(shown)
        documents["repositories"] = docker_archive.repositories_document(shown)
    return documents


def _write_blob(
    store: Store,
    descriptor: Descriptor,
    out: IO[bytes],
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> int:
    out.write(_header(f"blobs/sha256/{descriptor.digest.hex}", descriptor.size))
    with blobs.open_blob(store, descriptor) as stream:
        while data := stream.read(_CHUNK):
            out.write(data)
            done += len(data)
            if progress is not None:
                progress(done, total)
    out.write(bytes(padding(descriptor.size)))
    return done


def _header(name: str, size: int) -> bytes:
    return encode(Entry(name.encode(), size=size, stored=size))
