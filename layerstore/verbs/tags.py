"""List all tags of a repository, in its registry or in the store, for ``pull -a`` and ``push -a``."""

from layerstore import reference
from layerstore.callbacks import Note, note_or_log
from layerstore.errors import InvalidReference, LayerstoreError, NotFound
from layerstore.image import find
from layerstore.reference import Reference
from layerstore.store import index
from layerstore.store.opening import RootPath, open_store
from layerstore.transport import remote
from layerstore.transport.base import RegistryOptions, Stop


def remote_tags(
    repository: str, *, options: RegistryOptions | None = None, note: Note | None = None
) -> list[str]:
    """Return references to all tags that the registry has of a repository, in its order."""
    ref = _repository(repository)
    with remote.open_repository(ref, options or RegistryOptions(), Stop(), note_or_log(note)) as repo:
        return [f"{ref.repository}:{tag}" for tag in repo.tags()]


def local_tags(repository: str, *, root: RootPath = None, note: Note | None = None) -> list[str]:
    """Return the names of all images that the store has of a repository; notes what is not an image.

    Raises NotFound when there are none.
    """
    store, ref = open_store(root), _repository(repository)
    names = (index.name_of(entry) for entry in index.read(store).manifests)
    named = [name for name in names if name is not None and _is_of(name, ref)]
    found = list(find.images_among(store, named, note_or_log(note)))
    if not found:
        raise NotFound(f"no image of {repository} is in the store")
    return sorted(found)


def _repository(text: str) -> Reference:
    ref = reference.parse(text)
    if ref.digest is not None or str(ref) == text:
        raise InvalidReference(f"this takes all tags: give {ref.repository} without a tag")
    return ref


def _is_of(name: str, ref: Reference) -> bool:
    try:
        own = reference.parse(name)
    except LayerstoreError:
        return False
    return own.digest is None and remote.split(own) == remote.split(ref)
