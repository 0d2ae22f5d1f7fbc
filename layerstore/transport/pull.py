"""Pull an image from a registry into the store: its documents, then its blobs, then its entry in the
index.
"""

import os
from collections.abc import Callable, Iterable

import msgspec

from layerstore import limits, model
from layerstore.callbacks import Note
from layerstore.digest import Digest
from layerstore.errors import InvalidImage, LayerstoreError, LimitExceeded, UnsupportedMedia
from layerstore.model import Descriptor, Manifest, Platform
from layerstore.reference import Reference
from layerstore.store import blobs, index, partials
from layerstore.store.store import Store
from layerstore.transport import remote
from layerstore.transport.base import BlobReport, BlobState, RegistryOptions, Stop, ignore
from layerstore.transport.download import Download
from layerstore.transport.registry import Repository
from layerstore.transport.resolving import Resolved, resolve
from layerstore.transport.transfer import Transfer, TransferBegun, ignore_transfer
from layerstore.transport.workers import run_all

_RESERVE = 16 << 20  # bytes of the file system that a pull leaves free


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """The pulled image, its digest in the registry, and whether it is new to the store."""

    reference: str  # the full name
    digest: Digest
    image_id: Digest
    is_new: bool


def pull_image(
    store: Store,
    target: Reference,
    wanted: Platform | None,
    *,
    all_platforms: bool = False,
    options: RegistryOptions,
    report: BlobReport = ignore,
    begun: TransferBegun = ignore_transfer,
    note: Note,
) -> Pulled:
    """Download the image `target` from its registry, without the parts that the store or an earlier attempt
    has.

    Of an image for several platforms the store gets the index and this machine's image or, with
    `all_platforms`, every image; with `wanted` only that platform's image, without the index. Calls `begun`
    with the layers before the first of them is downloaded.
    """
    if target.digest is not None:
        target = Reference(target.domain, target.path, None, target.digest)  # as docker: the tag is dropped
    stop = Stop()
    partials.sweep(store, older_than=partials.EXPIRY)
    with store.writing(), remote.open_repository(target, options, stop, note) as repo:
        top = repo.manifest(target.digest or str(target.tag))
        resolved = resolve(repo, top, wanted, all_platforms=all_platforms)
        entry = resolved.documents[0].descriptor
        _load(repo, store, resolved, report, lambda shown: begun(Transfer(ref=target, shown=shown)))
        for document in reversed(resolved.documents):
            blobs.put_bytes(store, document.raw)
        known = any(one.digest == entry.digest for one in _entries(store, target))
        index.add(store, entry, target, in_registry=True)
    full = target.canonical if target.digest is None else f"{target.canonical}@{target.digest}"
    image_id = resolved.images[0].config.digest
    return Pulled(reference=full, digest=entry.digest, image_id=image_id, is_new=not known)


def _entries(store: Store, target: Reference) -> Iterable[Descriptor]:
    return (entry for entry in index.read(store).manifests if index.name_of(entry) == str(target))


def _load(
    repo: Repository,
    store: Store,
    resolved: Resolved,
    report: BlobReport,
    begin: Callable[[dict[Digest, Digest]], None],
) -> None:
    """Download all missing blobs, the images' configurations first."""
    wanted: dict[Digest, Descriptor] = {}
    for manifest in (*resolved.images, *resolved.others):
        for descriptor in (manifest.config, *manifest.layers):
            if descriptor.urls:
                raise UnsupportedMedia(f"layer {descriptor.digest} is stored outside the registry: refused")
            if wanted.setdefault(descriptor.digest, descriptor).size != descriptor.size:
                raise InvalidImage(f"blob {descriptor.digest} is listed with two sizes")
    missing = [one for one in wanted.values() if not blobs.is_present(store, one)]
    _check_space(store, missing)
    layers = [layer.digest for manifest in resolved.images for layer in manifest.layers] if missing else []
    begin({layer: layer for layer in layers})
    for manifest in resolved.images:
        _load_config(repo, store, manifest)
        wanted.pop(manifest.config.digest, None)
    for descriptor in wanted.values():
        state: BlobState = "waiting" if descriptor in missing else "present"
        report(descriptor.digest, state, 0, descriptor.size)
    client = repo.client
    downloads = [Download(repo, store, one, report) for one in wanted.values()]
    # Helpers come last, so that no thread helps while it could start another blob.
    helping = [one.help for _ in range(client.options.jobs - 1) for one in downloads if one.is_large]
    run_all([*(one.run for one in downloads), *helping], client.options.jobs, client.stop)


def _load_config(repo: Repository, store: Store, manifest: Manifest) -> None:
    most = limits.current().max_document
    if manifest.config.size > most:
        raise LimitExceeded(f"the image configuration is larger than {most} bytes", "document")
    Download(repo, store, manifest.config, ignore).run()
    config = model.parse_config(blobs.read_blob(store, manifest.config))
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise InvalidImage(
            f"image {manifest.config.digest} has {len(manifest.layers)} layers, "
            f"but {len(config.rootfs.diff_ids)} diffIDs"
        )


def _check_space(store: Store, missing: Iterable[Descriptor]) -> None:
    """Raise LayerstoreError if there is not enough space, before hours of downloading."""
    needed = sum(descriptor.size - partials.kept(store, descriptor) for descriptor in missing)
    status = os.statvfs(store.root)
    if needed > max(0, status.f_bavail * status.f_frsize - _RESERVE):
        raise LayerstoreError(f"the image needs {needed} bytes, more than are free in {store.root}")
