"""An image in the store: manifest and configuration, read once, verified, never changed."""

from collections.abc import Iterator

import msgspec

from layerstore import media, model
from layerstore.digest import Digest
from layerstore.errors import InvalidImage, UnsupportedMedia
from layerstore.model import Descriptor, History, ImageConfig, Manifest
from layerstore.store import blobs
from layerstore.store.store import Store


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """`descriptor` is the manifest's, without annotations; the raw documents are as stored."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    raw_manifest: bytes
    raw_config: bytes

    @property
    def id(self) -> Digest:
        """The image ID: the digest of the configuration."""
        return self.manifest.config.digest

    @property
    def layers(self) -> list[tuple[Descriptor, Digest]]:
        """Each layer's descriptor and diffID, bottom first."""
        return list(zip(self.manifest.layers, self.config.rootfs.diff_ids, strict=True))

    @property
    def size(self) -> int:
        """What the image takes in the store: its layers, compressed, and its configuration."""
        return self.manifest.config.size + sum(layer.size for layer in self.manifest.layers)

    @property
    def created(self) -> str | None:
        return self.config.created

    def steps(self) -> Iterator[tuple[History, Descriptor | None]]:
        """The history, oldest first, each step with the layer it made (None: an empty one)."""
        layers = iter(self.manifest.layers)
        for step in self.config.steps:
            yield step, None if step.empty_layer else next(layers, None)
        for layer in layers:
            yield History(created=self.created), layer


def load(store: Store, descriptor: Descriptor) -> Image:
    """Read the image whose manifest this is; everything is verified but the layers' content."""
    if descriptor.media_type not in media.MANIFESTS:
        raise UnsupportedMedia(f"{descriptor.digest} is not an image but {descriptor.media_type}")
    raw_manifest = blobs.read_blob(store, descriptor)
    manifest = model.parse_manifest(raw_manifest, descriptor.media_type)
    check_is_image(manifest, descriptor.digest)
    raw_config = blobs.read_blob(store, manifest.config)
    config = model.parse_config(raw_config)
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise InvalidImage(
            f"image {descriptor.digest} has {len(manifest.layers)} layers, "
            f"but {len(config.rootfs.diff_ids)} diffIDs"
        )
    plain = msgspec.structs.replace(descriptor, annotations=None)
    return Image(
        descriptor=plain, manifest=manifest, config=config, raw_manifest=raw_manifest, raw_config=raw_config
    )


def check_is_image(manifest: Manifest, digest: Digest) -> None:
    """UnsupportedMedia for a manifest of something else, as a chart, a signature or an SBOM."""
    if manifest.config.media_type not in media.CONFIGS:
        kind = manifest.artifact_type or manifest.config.media_type
        raise UnsupportedMedia(f"{digest} is not an image but {kind}")
    for layer in manifest.layers:
        if media.layer_compression(layer.media_type) is None:
            raise UnsupportedMedia(f"layer {layer.digest} has the unsupported media type {layer.media_type}")
