"""``tag`` and ``rmi``: names of images."""

from collections.abc import Iterator

from layerstore import reference
from layerstore.errors import InUse, LayerstoreError
from layerstore.image import find
from layerstore.image.find import Found
from layerstore.store import index, sweep
from layerstore.store.store import Store
from layerstore.verbs.setting import Root, open_store
from layerstore.workspace import mounting, overlay
from layerstore.workspace.record import all_workspaces


def tag(source: str, target: str, *, root: Root = None) -> None:
    """Give the image `source` the name `target` too, taking the name from whatever image had it."""
    ref = reference.parse_tag(target)
    store = open_store(root)
    with store.writing():
        index.add(store, find.find(store, source).entry, ref)


def rmi(image: str, *, force: bool = False, root: Root = None) -> list[str]:
    """Take a name of an image away, and with the last one the image itself and what only it needed.

    Returns what was done, a line each (``Untagged: ...``, ``Deleted: ...``). An image that a workspace is
    based on or that is mounted stays; `force` only allows an image with several names to be removed by its
    ID.
    """
    return list(_remove(open_store(root), image, force=force))


def _remove(store: Store, word: str, *, force: bool) -> Iterator[str]:
    found = find.find(store, word)
    chosen = [name for name in found.names if _means(word, name)]
    if chosen and len(found.names) > len(chosen):
        for name in chosen:
            index.remove_name(store, name)
            yield f"Untagged: {name}"
        return
    if not chosen and len(found.names) > 1 and not force:
        raise InUse(f"{word} has several names ({', '.join(found.names)}): remove those, or use rmi -f")
    _refuse_used(store, found)
    index.remove(store, found.entry.digest)
    yield from (f"Untagged: {name}" for name in found.names)
    yield f"Deleted: {found.image.id}"
    keep = {
        workspace.record.manifest.digest: workspace.record.manifest for workspace in all_workspaces(store)
    }
    for diff_id in sweep.sweep(store, list(keep.values())):
        yield f"Deleted: {diff_id}"


def _means(word: str, name: str) -> bool:
    if word == name:
        return True
    try:
        return reference.parse(word).canonical == reference.parse(name).canonical
    except LayerstoreError:
        return False


def _refuse_used(store: Store, found: Found) -> None:
    image = found.image
    for workspace in all_workspaces(store):
        if workspace.record.manifest.digest == image.descriptor.digest:
            raise InUse(f"image {image.id.short} is used by the workspace {workspace.name}: rm that first")
    for record in overlay.mounts_of(mounting.source_of(image.id)):
        raise InUse(
            f"image {image.id.short} is mounted at {record.mountpoint.decode(errors='backslashreplace')}"
        )
