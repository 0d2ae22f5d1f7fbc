"""``save``: images as one archive that docker, podman, skopeo and this program read."""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from layerstore import media, reference
from layerstore.callbacks import MeasuredProgress, Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.image import find, platforms
from layerstore.image.find import FoundImage
from layerstore.model import Platform
from layerstore.reference import Reference
from layerstore.store import index
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.transport import pack
from layerstore.transport.output import OutputTarget, open_output
from layerstore.transport.pack import ToPack

Format = Literal["docker", "oci"]


def save(
    images: Sequence[str],
    output: OutputTarget,
    *,
    form: Format = "docker",
    platform: str | None = None,
    root: RootPath = None,
    progress: MeasuredProgress | None = None,
    note: Note | None = None,
) -> None:
    """Write `images` to one archive: a path, which gets the complete archive or nothing, or a stream.

    A repository without a tag stands for all its tags; an image given by its ID is saved without a name.
    "docker" is docker's form since version 25, which includes an image layout that keeps all digests; "oci"
    is that layout alone. `platform` chooses one image of those for several platforms.
    """
    store = open_store(root)
    wanted = None if platform is None else platforms.parse(platform)
    with store.writing():  # no sweep removes what is read
        chosen: dict[Digest, ToPack] = {}
        for word in images:
            for found, refs in _meant(store, word, wanted, note_or_log(note)):
                # With a platform, that image without the index around it.
                whole = msgspec.structs.replace(found.entry, annotations=None)
                one = ToPack(whole if wanted is None else found.image.descriptor, found.image, refs)
                if known := chosen.get(one.entry.digest):
                    one = ToPack(one.entry, one.image, tuple(dict.fromkeys([*known.refs, *refs])))
                chosen[one.entry.digest] = one
        if form == "docker":
            _remark_on_zstd(list(chosen.values()), note_or_log(note))
        with open_output(output) as out:
            pack.write(store, list(chosen.values()), out, docker=form == "docker", progress=progress)


def _meant(
    store: Store, word: str, wanted: Platform | None, note: Note
) -> Iterator[tuple[FoundImage, tuple[Reference, ...]]]:
    """Yield the images a word stands for and the names to save them under, by docker's rules."""
    ref = _parsed(word)
    if ref is not None and ref.digest is None and str(ref) == f"{word}:{reference.DEFAULT_TAG}":
        tagged = {str(name): name for name in _names(store) if _is_of(name, ref)}
        taken = find.images_among(store, tagged, note)
        yield from ((find.find(store, name, wanted), (tagged[name],)) for name in taken)
        if tagged:
            return
    found = find.find(store, word, wanted)
    named = ref is not None and ref.digest is None and _is_named(found, ref)
    yield found, (ref,) if named and ref is not None else ()


def _parsed(word: str) -> Reference | None:
    try:
        return reference.parse(word)
    except LayerstoreError:
        return None


def _names(store: Store) -> list[Reference]:
    found = (_parsed(name) for entry in index.read(store).manifests if (name := index.name_of(entry)))
    return [ref for ref in found if ref is not None and ref.digest is None]


def _is_of(name: Reference, repository: Reference) -> bool:
    """Return whether a name belongs to a repository, in whatever form both are written."""
    return name.full_repository == repository.full_repository


def _is_named(found: FoundImage, ref: Reference) -> bool:
    return any((own := _parsed(name)) is not None and own.canonical == ref.canonical for name in found.names)


def _remark_on_zstd(chosen: Sequence[ToPack], note: Note) -> None:
    layers = (layer for one in chosen for layer in one.image.manifest.layers)
    if any(media.layer_compression(layer.media_type) == "zstd" for layer in layers):
        note("some layers are compressed with zstd, which docker before 23 cannot load")
