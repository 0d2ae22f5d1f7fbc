"""Images of random bytes: registries and clients do not look into layers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerstore import media, model, reference
from layerstore.digest import Digest
from layerstore.model import Descriptor
from layerstore.store import blobs, index
from layerstore.store.locking import TEMP_PREFIX
from layerstore.store.store import Store
from layerstore.transport.base import RegistryOptions

MIB = 1 << 20
FAST = RegistryOptions(backoff=0.01, attempts=4, timeout=5, max_wait=2)


def put(store: Store, media_type: str, raw: bytes, **more: Any) -> Descriptor:
    return Descriptor(media_type=media_type, digest=blobs.put_bytes(store, raw), size=len(raw), **more)


def config(layers: Sequence[bytes], **more: Any) -> bytes:
    diff_ids = [Digest.of(b"tar of " + layer) for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return model.encode({**document, **more})


def image(
    store: Store,
    name: str | None,
    layers: Sequence[bytes] = (b"",),
    *,
    docker: bool = False,
    layer_type: str = "",
    **more: Any,
) -> Descriptor:
    """An image of these layers; `more` goes into its configuration."""
    kinds = (
        (media.DOCKER_MANIFEST, media.DOCKER_CONFIG, media.DOCKER_LAYER_GZIP)
        if docker
        else (media.OCI_MANIFEST, media.OCI_CONFIG, media.OCI_LAYER_GZIP)
    )
    manifest = model.Manifest(
        schema_version=2,
        media_type=kinds[0],
        config=put(store, kinds[1], config(layers, **more)),
        layers=[put(store, layer_type or kinds[2], layer) for layer in layers],
    )
    # Spaces, so that whoever writes the document anew changes its digest.
    descriptor = put(store, kinds[0], model.encode(manifest).replace(b",", b" ,\n"))
    index.add(store, descriptor, None if name is None else reference.parse(name))
    return descriptor


def multi(store: Store, name: str, platforms: Sequence[tuple[str, str]], *, size: int = 1000) -> Descriptor:
    """An image for several (architecture, variant)s."""
    entries = []
    for architecture, variant in platforms:
        made = image(store, None, [os.urandom(size)], architecture=architecture)
        index.remove(store, made.digest)
        platform = model.Platform(os="linux", architecture=architecture, variant=variant)
        entries.append(
            Descriptor(media_type=made.media_type, digest=made.digest, size=made.size, platform=platform)
        )
    document = model.Index(schema_version=2, media_type=media.OCI_INDEX, manifests=entries)
    descriptor = put(store, media.OCI_INDEX, model.encode(document))
    index.add(store, descriptor, reference.parse(name))
    return descriptor


def digests(root: Path) -> set[str]:
    """Every blob of a store, each checked. A process that was killed may have left a temporary file there."""
    blobs = (path for path in (root / "oci/blobs/sha256").iterdir() if not path.name.startswith(TEMP_PREFIX))
    found = {path.name: path.read_bytes() for path in blobs}
    assert all(Digest.of(raw).hex == name for name, raw in found.items())
    return set(found)


def leftovers(root: Path) -> list[Path]:
    return [*root.rglob(f"{TEMP_PREFIX}*"), *root.rglob("partial/*")]
