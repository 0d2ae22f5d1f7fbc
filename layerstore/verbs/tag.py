"""``tag`` and ``rmi``: give and remove names of images."""

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
    """Give the image `source` the name `target` as well, and take that name from any other image."""
    ref = reference.parse_tag(target)
    store = open_store(root)
    with store.writing():
        index.add(store, find.find(store, source).entry, ref)


def rmi(image: str, *, force: bool = False, prune: bool = True, root: RootPath = None) -> list[str]:
    """Remove a name of an image, and with the last name the image and what only it needed.

    Returns one line for each removal (``Untagged: ...``, ``Deleted: ...``). Raises InUse for an image that is
    mounted or that a workspace is based on. `force` also removes an image with several names by its ID, and
    one that unmounted workspaces need; what they need of it stays as long as they exist. Without `prune`,
    blobs and unpacked layers stay until the next rmi or prune.
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
    """Yield docker's lines for lost names: a repository's last tag takes the repository's digests with it."""
    yield from (f"Untagged: {name}" for name in gone)
    left = {_repository(name) for one in alike for name in one.names if name not in gone}
    for digest in sorted({digest for one in alike for digest in one.digests}):
        if digest not in gone and _repository(digest) not in left:
            yield f"Untagged: {digest}"


def _chosen(word: str, names: Sequence[str]) -> list[str]:
    """Return the names to remove: `word` and, if it is a repository's last tag, its names by digest."""
    chosen = [name for name in names if _means(word, name)]
    of_it = [name for name in names if chosen and _repository(name) == _repository(chosen[0])]
    if all(name in chosen or "@" in name for name in of_it):
        return of_it if any("@" not in name for name in chosen) else chosen
    return chosen


def _is_single(names: Sequence[str]) -> bool:
    """Return whether an image has at most one tag and all its names are in one repository."""
    return sum("@" not in name for name in names) <= 1 and len({_repository(name) for name in names}) <= 1


def _forget_digest(store: Store, word: str, alike: Sequence[FoundImage]) -> bool:
    """Do ``rmi REPOSITORY@DIGEST`` for an image with tags there: it only loses the digest."""
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
    """Return the workspaces that need the image; raises InUse if one is mounted or `force` is not given."""
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
