"""``push``: an image of the store to a registry."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from layerstore import media, model, reference
from layerstore.callbacks import Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, NotFound, UnsupportedMedia
from layerstore.image import find, platforms
from layerstore.image.find import FoundImage
from layerstore.image.image import load
from layerstore.model import Descriptor
from layerstore.reference import Reference
from layerstore.store import blobs, index
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.transport import remote
from layerstore.transport.base import BlobReport, RegistryOptions, Stop, ignore
from layerstore.transport.registry import Repository
from layerstore.transport.transfer import Transfer, TransferBegun, ignore_transfer
from layerstore.transport.upload import upload
from layerstore.transport.workers import run_all


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What ``push`` stored in the registry: the tag and the manifest's descriptor."""

    reference: str
    tag: str
    digest: Digest
    size: int


def push(
    image: str,
    ref: str | None = None,
    *,
    platform: str | None = None,
    options: RegistryOptions | None = None,
    root: RootPath = None,
    report: BlobReport = ignore,
    begun: TransferBegun = ignore_transfer,
    note: Note | None = None,
) -> Pushed:
    """Push an image to a registry under `ref`, by default its own name, except blobs that are there already.

    An image for several platforms is pushed with its index if the store has all of it; else only this
    machine's (or `platform`'s) image is, with a note. Manifests are sent byte for byte. Calls `begun` with
    the layers before the first of them moves.
    """
    store, stop, note = open_store(root), Stop(), note_or_log(note)
    with store.writing():  # no sweep removes what is sent
        found = find.find(store, image)
        target = reference.parse_tag(ref if ref is not None else _own_name(found, image))
        entry = _choose(store, found, platform, image, note)
        manifests, contents = _contents(store, entry)
        with remote.open_repository(target, options or RegistryOptions(), stop, note, push=True) as repo:
            elsewhere = _elsewhere(store, target)
            begun(Transfer(ref=target, shown=_layers(store, entry), elsewhere=elsewhere))
            _send(repo, store, contents, elsewhere, report)
            for manifest in manifests:
                repo.put_manifest(manifest.digest, manifest, blobs.read_blob(store, manifest))
            repo.put_manifest(str(target.tag), entry, blobs.read_blob(store, entry))
        try:
            index.mark_sources(store, entry.digest, target, in_registry=True)
        except OSError as error:  # a store that is full, or read-only
            note(f"pushed, but the store could not record it: {error.strerror}")
    return Pushed(reference=target.canonical, tag=str(target.tag), digest=entry.digest, size=entry.size)


def _own_name(found: FoundImage, word: str) -> str:
    """Return the name to push under when none is given: the word itself, or its image's only name."""
    if word in found.names or not found.image.id.hex.startswith(word.removeprefix("sha256:")):
        return word
    if len(found.names) != 1:
        raise LayerstoreError(f"{word} has {len(found.names)} names: give the one to push")
    return found.names[0]


def _choose(store: Store, found: FoundImage, platform: str | None, word: str, note: Note) -> Descriptor:
    """Return the document to push: the index with everything it lists, or one image."""
    if platform is not None:
        return _plain(find.of_platform(store, found.entry, platforms.parse(platform), word).descriptor)
    entry = _plain(found.entry)
    if entry.media_type not in media.INDEXES:
        return entry
    if all(blobs.is_present(store, blob) for blob in _reachable(store, entry)):
        return entry
    here = platforms.shown(platforms.of_config(found.image.config))
    note(f"the store lacks some platforms of {word}: pushing only {here}")
    return _plain(found.image.descriptor)


def _plain(entry: Descriptor) -> Descriptor:
    return msgspec.structs.replace(entry, annotations=None, platform=None)


def _reachable(store: Store, entry: Descriptor) -> Iterator[Descriptor]:
    """Yield everything a manifest or an index refers to, whether it is in the store or not."""
    yield entry
    if not blobs.is_present(store, entry):
        return
    if entry.media_type in media.INDEXES:
        for nested in model.parse_index(blobs.read_blob(store, entry), entry.media_type).manifests:
            yield from _reachable(store, nested)
    elif entry.media_type in media.MANIFESTS:
        manifest = model.parse_manifest(blobs.read_blob(store, entry), entry.media_type)
        yield manifest.config
        yield from manifest.layers


def _contents(store: Store, entry: Descriptor) -> tuple[list[Descriptor], list[Descriptor]]:
    """Return what to send: the manifests below `entry`, innermost first, and the blobs, each once."""
    manifests: dict[Digest, Descriptor] = {}
    contents: dict[Digest, Descriptor] = {}
    for one in _reachable(store, entry):
        if one.digest == entry.digest:
            continue
        if one.urls:
            raise UnsupportedMedia(f"layer {one.digest} is stored outside registries: refused")
        if not blobs.is_present(store, one):
            raise NotFound(f"blob {one.digest} is missing from the store")
        place = manifests if one.media_type in media.MANIFESTS | media.INDEXES else contents
        place.setdefault(one.digest, _plain(one))
    return list(manifests.values())[::-1], list(contents.values())


def _layers(store: Store, entry: Descriptor) -> dict[Digest, Digest]:
    """Return the diffIDs of all layers to push, by their blobs, each image's topmost first."""
    found: dict[Digest, Digest] = {}
    for one in _reachable(store, entry):
        if one.media_type in media.MANIFESTS:
            with suppress(UnsupportedMedia):  # a signature beside the images
                layers = load(store, one).layers
                found |= {layer.digest: diff_id for layer, diff_id in reversed(layers)}
    return found


def _elsewhere(store: Store, target: Reference) -> dict[Digest, str]:
    """Return blobs that another repository of the registry probably has, judging by names in the store."""
    domain, path = remote.split(target)
    known: dict[Digest, str] = {}
    for entry in index.read(store).manifests:
        try:
            there, repository = remote.split(reference.parse(index.name_of(entry) or ""))
            if there == domain and repository != path:
                for one in _reachable(store, entry):
                    known.setdefault(one.digest, repository)
        except LayerstoreError:
            continue  # not a registry's name, or an image that cannot be read
    return known


def _send(
    repo: Repository,
    store: Store,
    contents: list[Descriptor],
    elsewhere: dict[Digest, str],
    report: BlobReport,
) -> None:
    for one in contents:
        report(one.digest, "waiting", 0, one.size)
    # Large blobs first, so that a small one ends last.
    ordered = sorted(contents, key=lambda one: -one.size)
    tasks = [lambda one=one: upload(repo, store, one, report, elsewhere.get(one.digest)) for one in ordered]
    run_all(tasks, repo.client.options.jobs, repo.client.stop)
