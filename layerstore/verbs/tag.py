"""``tag`` and ``rmi``: names of images."""

from collections.abc import Collection, Iterator, Sequence

from layerstore import reference
from layerstore.errors import InUse, LayerstoreError, printable
from layerstore.image import find
from layerstore.image.find import FoundImage
from layerstore.store import index, sweep
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import mounting, overlay
from layerstore.workspace.record import Workspace, all_workspaces
from layerstore.workspace.uses import kept_for_workspaces, mounted_layers


def tag(source: str, target: str, *, root: RootPath = None) -> None:
    """Give the image `source` the name `target` too, taking the name from whatever image had it."""
    ref = reference.parse_tag(target)
    store = open_store(root)
    with store.writing():
        index.add(store, find.find(store, source).entry, ref)


def rmi(image: str, *, force: bool = False, prune: bool = True, root: RootPath = None) -> list[str]:
    """Take a name of an image away, and with the last one the image itself and what only it needed.

    Returns what was done, a line each (``Untagged: ...``, ``Deleted: ...``). An image that a workspace is
    based on or that is mounted stays. `force` removes an image by its ID though it has several names, and
    one that workspaces need though none of them is mounted: what they need of it stays as long as they do.
    Without `prune` blobs and unpacked layers stay until the next rmi or prune.
    """
    return list(_remove(open_store(root), image, force=force, prune=prune))


def _remove(store: Store, word: str, *, force: bool, prune: bool) -> Iterator[str]:
    found = find.find(store, word)
    alike = find.with_id(store, found.image.id)
    names = sorted(name for one in alike for name in one.names)
    chosen = _chosen(word, names)
    if not chosen and _forget_digest(store, word, alike):
        yield f"Untagged: {word}"
        return
    if not chosen and not force and not _is_single(names):
        several = f"it has several names ({', '.join(names)}): remove those, or use rmi -f"
        raise InUse(f"conflict: unable to delete {word} (must be forced): {several}")
    gone = chosen or names
    used = None if len(gone) < len(names) else _refuse_used(store, found, force=force)
    if used is None:
        for name in gone:
            index.remove_name(store, name)
    else:
        for one in alike:
            index.remove(store, one.entry.digest)
    yield from untagged(alike, gone)
    if used is not None and not used:
        yield f"Deleted: {found.image.id}"
    if prune and {one.entry.digest for one in alike} - {e.digest for e in index.read(store).manifests}:
        swept = sweep.sweep(store, kept_for_workspaces(store), mounted=mounted_layers(store))
        for diff_id in swept.layers:
            yield f"Deleted: {diff_id}"


def untagged(alike: Sequence[FoundImage], gone: Collection[str]) -> Iterator[str]:
    """docker's lines for the names that an image loses: with the last tag of a repository go its digests."""
    yield from (f"Untagged: {name}" for name in gone)
    left = {_repository(name) for one in alike for name in one.names if name not in gone}
    for digest in sorted({digest for one in alike for digest in one.digests}):
        if digest not in gone and _repository(digest) not in left:
            yield f"Untagged: {digest}"


def _chosen(word: str, names: Sequence[str]) -> list[str]:
    """The names that go with `word`: itself, and with the last tag of a repository its names by digest."""
    chosen = [name for name in names if _means(word, name)]
    of_it = [name for name in names if chosen and _repository(name) == _repository(chosen[0])]
    if all(name in chosen or "@" in name for name in of_it):
        return of_it if any("@" not in name for name in chosen) else chosen
    return chosen


def _is_single(names: Sequence[str]) -> bool:
    """Whether an image has at most one tag, and no names by digest but in the same repository."""
    return sum("@" not in name for name in names) <= 1 and len({_repository(name) for name in names}) <= 1


def _forget_digest(store: Store, word: str, alike: Sequence[FoundImage]) -> bool:
    """``rmi REPOSITORY@DIGEST`` of what has tags there too: it only loses the digest."""
    known = {digest: one.entry.digest for one in alike for digest in one.digests}
    if word not in known:
        return False
    index.mark_sources(store, known[word], reference.parse(word), in_registry=False)
    return True


def _repository(name: str) -> str:
    try:
        return reference.parse(name).full_repository
    except LayerstoreError:
        return name


def _means(word: str, name: str) -> bool:
    if word == name:
        return True
    try:
        one, other = reference.parse(word), reference.parse(name)
    except LayerstoreError:
        return False
    return (one.canonical, one.digest) == (other.canonical, other.digest)


def _refuse_used(store: Store, found: FoundImage, *, force: bool) -> list[Workspace]:
    """The workspaces that need the image, all of them unmounted and `force` given; else InUse."""
    image = found.image
    users = [one for one in all_workspaces(store) if one.record.image_id == image.id]
    for workspace in users:
        if mounting.state_of(workspace) == "mounted":
            raise InUse(f"image {image.id.short} is used by the mounted workspace {workspace.name}")
        if not force:
            raise InUse(
                f"image {image.id.short} is used by the workspace {workspace.name}: "
                "rm that first, or use rmi -f"
            )
    for record in overlay.mounts_of(mounting.source_of(image.id)):
        raise InUse(f"image {image.id.short} is mounted at {printable(record.mountpoint)}")
    return users
