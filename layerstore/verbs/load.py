"""``load``: the images of an archive into the store."""

from collections.abc import Iterator, Sequence

import msgspec

from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.digest import Digest, Readable
from layerstore.errors import InvalidImage, LayerstoreError
from layerstore.image import find, platforms
from layerstore.model import Platform
from layerstore.reference import Reference
from layerstore.store import index, sweep
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.transport import archive, docker_archive, oci_archive
from layerstore.transport.archive import Archive
from layerstore.transport.input import open_input
from layerstore.transport.oci_archive import Packed
from layerstore.workspace.uses import kept_for_workspaces


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """One image of an archive under one of its names, or without a name."""

    reference: str | None
    image_id: Digest
    digest: Digest  # of the manifest, or of the index for several platforms
    replaced: Digest | None = None  # the image ID of the one that had the name, if that was another


def load(
    source: str | Readable,
    *,
    platform: str | None = None,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> list[Loaded]:
    """Load a docker-archive or an oci-archive: a file, a URL or a stream, compressed or not.

    Keeps the archive's manifests byte for byte; a docker-archive from before docker 25 has none, so its
    images get manifests around the same configuration and layers. Names are set only after the whole archive
    has been checked; what was read of a refused archive is removed. Signatures, charts and the like are noted
    and left out. With `platform` only the images for it are loaded, without their index; an archive without
    such an image is refused.
    """
    store, wanted = open_store(root, make=True), platforms.parse_optional(platform)
    read = Archive(store)
    try:
        with store.writing(), open_input(source) as stream:
            archive.read(read, stream, progress=progress)
            chosen = [_for_platform(store, one, wanted) for one in _packed(read, note_or_log(note))]
            loaded = list(_enter(store, chosen, note_or_log(note)))
    finally:
        if read.added:
            # Also removes blobs of an accepted archive that no manifest names.
            sweep.sweep(store, kept_for_workspaces(store), only=read.added)
    return loaded


def _packed(read: Archive, note: Note) -> list[Packed]:
    """Return all images of the archive, from either document; other content is noted if there are images."""
    layout = oci_archive.packed(read)
    in_layout, left_out = layout or ([], [])
    by_docker = docker_archive.packed(read, in_layout)
    if layout is None and by_docker is None:
        raise InvalidImage(
            "not an image archive: it has neither manifest.json nor index.json "
            "(layerstore import reads root filesystem tarballs)"
        )
    merged: dict[Digest, Packed] = {}
    for one in [*in_layout, *(by_docker or [])]:
        known = merged.get(one.entry.digest, one)
        merged[one.entry.digest] = Packed(known.entry, (*known.names, *one.names))
    for name, error in left_out:
        if not merged:
            raise error
        note(f"{name} is left out: {error}")
    return list(merged.values())


def _for_platform(store: Store, one: Packed, wanted: Platform | None) -> Packed:
    """Return the image for a platform, without its index. Raises NotFound when the archive has none."""
    if wanted is None:
        return one
    what = one.names[0] if one.names else str(one.entry.digest)
    chosen = find.of_platform(store, one.entry, wanted, what).descriptor
    return Packed(msgspec.structs.replace(chosen, platform=None), one.names)


def _enter(store: Store, packed: Sequence[Packed], note: Note) -> Iterator[Loaded]:
    """Give every image its names. All images must be in the store."""
    for one in packed:
        refs = _references(one.names, note)
        image_id = find.image_of(store, one.entry).id
        for ref in refs:
            old = _replaced(store, ref, image_id)
            index.add(store, one.entry, ref)
            yield Loaded(reference=str(ref), image_id=image_id, digest=one.entry.digest, replaced=old)
        if not refs:
            index.add(store, one.entry, None)
            yield Loaded(reference=None, image_id=image_id, digest=one.entry.digest)


def _references(names: Sequence[str], note: Note) -> list[Reference]:
    refs: dict[str, Reference] = {}
    for name in names:
        ref = oci_archive.reference_of(name)
        if ref is None:
            note(f"loaded an image without its name, which is not a valid reference: {name[:200]!r}")
        else:
            refs[str(ref)] = ref
    return list(refs.values())


def _replaced(store: Store, ref: Reference, image_id: Digest) -> Digest | None:
    """Return the ID of another image that has the name; None if there is none."""
    for entry in index.read(store).manifests:
        if index.name_of(entry) == str(ref):
            try:
                old = find.image_of(store, entry).id
            except LayerstoreError:  # a damaged image may be replaced
                old = entry.digest
            return None if old == image_id else old
    return None
