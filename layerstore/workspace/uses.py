"""What workspaces and mounts use in the store and must not be removed."""

from layerstore.digest import Digest
from layerstore.image import find
from layerstore.image.find import FoundImage
from layerstore.model import Descriptor
from layerstore.store.store import Store
from layerstore.workspace import mounting, overlay
from layerstore.workspace.record import all_workspaces


def kept_for_workspaces(store: Store) -> list[Descriptor]:
    """Return the manifests that workspaces need, whether the index lists them or not."""
    found = {one.record.manifest.digest: one.record.manifest for one in all_workspaces(store)}
    return list(found.values())


def mounted_layers(store: Store) -> set[Digest]:
    """Return the diffIDs of all layers that mounts use."""
    mounted = [one for one in all_workspaces(store, []) if mounting.state_of(one) in {"mounted", "dead"}]
    images = [one.image for one in find.all_images(store, []) if is_mounted(one.image.id)]
    of_images = (diff_id for image in images for diff_id in image.config.rootfs.diff_ids)
    return {diff_id for one in mounted for diff_id in one.record.diff_ids}.union(of_images)


def is_mounted(image_id: str) -> bool:
    """Return whether an image is mounted read-only somewhere."""
    return bool(overlay.mounts_of(mounting.source_of(image_id)))


def is_used(store: Store, found: FoundImage) -> bool:
    """Return whether a workspace needs an image or the image is mounted."""
    digest = found.image.descriptor.digest
    if any(one.digest == digest for one in kept_for_workspaces(store)):
        return True
    return is_mounted(found.image.id)
