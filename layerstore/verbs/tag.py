"""``tag`` and ``rmi``: names of images."""

from collections.abc import Iterator

from layerstore import reference
from layerstore.errors import InUse, LayerstoreError
from layerstore.image import find
from layerstore.image.find import Found
from layerstore.model import Descriptor
from layerstore.store import index, sweep
from layerstore.store.store import Store
from layerstore.verbs.setting import Root, open_store
from layerstore.workspace import mounting, overlay
from layerstore.workspace.record import Workspace, all_workspaces


def tag(source: str, target: str, *, root: Root = None) -> None:
    """Give the image `source` the name `target` too, taking the name from whatever image had it."""
    ref = reference.parse_tag(target)
    store = open_store(root)
    with store.writing():
        index.add(store, find.find(store, source).entry, ref)


def rmi(image: str, *, force: bool = False, prune: bool = True, root: Root = None) -> list[str]:
    """Take a name of an image away, and with the last one the image itself and what only it needed.

    Returns what was done, a line each (``Untagged: ...``, ``Deleted: ...``). An image that a workspace is
    based on or that is mounted stays. `force` removes an image by its ID though it has several names, and
    one that workspaces need though none of them is mounted: what they need of it stays as long as they do.
    Without `prune` blobs and unpacked layers stay until the next rmi or prune.
    """
    return list(_remove(open_store(root), image, force=force, prune=prune))


def kept_for_workspaces(store: Store) -> list[Descriptor]:
    """The manifests that workspaces need, whether the index has them or not."""
    found = {one.record.manifest.digest: one.record.manifest for one in all_workspaces(store)}
    return list(found.values())


def is_mounted(image_id: str) -> bool:
    """Whether an image is mounted read-only somewhere."""
    return bool(overlay.mounts_of(mounting.source_of(image_id)))


def is_used(store: Store, found: Found) -> bool:
    """Whether a workspace needs an image, or it is mounted."""
    digest = found.image.descriptor.digest
    if any(one.digest == digest for one in kept_for_workspaces(store)):
        return True
    return is_mounted(found.image.id)


def _remove(store: Store, word: str, *, force: bool, prune: bool) -> Iterator[str]:
    found = find.find(store, word)
    chosen = [name for name in found.names if _means(word, name)]
    if chosen and len(found.names) > len(chosen):
        for name in chosen:
            index.remove_name(store, name)
            yield f"Untagged: {name}"
        return
    if not chosen and len(found.names) > 1 and not force:
        raise InUse(f"{word} has several names ({', '.join(found.names)}): remove those, or use rmi -f")
    used = _refuse_used(store, found, force=force)
    index.remove(store, found.entry.digest)
    yield from (f"Untagged: {name}" for name in found.names)
    if not used:
        yield f"Deleted: {found.image.id}"
    if not prune:
        return
    for diff_id in sweep.sweep(store, kept_for_workspaces(store)).layers:
        yield f"Deleted: {diff_id}"


def _means(word: str, name: str) -> bool:
    if word == name:
        return True
    try:
        return reference.parse(word).canonical == reference.parse(name).canonical
    except LayerstoreError:
        return False


def _refuse_used(store: Store, found: Found, *, force: bool) -> list[Workspace]:
    """The workspaces that need the image, all of them unmounted and `force` given; else InUse."""
    image = found.image
    users = [one for one in all_workspaces(store) if one.record.manifest.digest == image.descriptor.digest]
    for workspace in users:
        if mounting.state_of(workspace) == "mounted":
            raise InUse(f"image {image.id.short} is used by the mounted workspace {workspace.name}")
        if not force:
            raise InUse(
                f"image {image.id.short} is used by the workspace {workspace.name}: "
                "rm that first, or use rmi -f"
            )
    for record in overlay.mounts_of(mounting.source_of(image.id)):
        raise InUse(
            f"image {image.id.short} is mounted at {record.mountpoint.decode(errors='backslashreplace')}"
        )
    return users
