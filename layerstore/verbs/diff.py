"""``diff``: what a workspace changes in its image, or what makes one image the other."""

from collections.abc import Iterator
from contextlib import ExitStack

from layerstore.callbacks import Note, note_or_log
from layerstore.image.unpacked import image_stack
from layerstore.layer.write.diff import Change, changes, changes_between
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import mounting
from layerstore.workspace.quiescing import quiesced, stack_of
from layerstore.workspace.record import open_workspace


def diff(
    first: str, second: str | None = None, *, root: RootPath = None, note: Note | None = None
) -> Iterator[Change]:
    """Return the changes of workspace `first`, or from image `first` to image `second`, in docker's order."""
    store = open_store(root)
    if second is None:
        return _of_workspace(store, first, note_or_log(note))
    return _of_images(store, first, second, note_or_log(note))


def _of_workspace(store: Store, name: str, note: Note) -> Iterator[Change]:
    workspace = open_workspace(store, name)
    with workspace.locked(shared=True):
        workspace = workspace.reread()
        mounting.prepare_layers(workspace, note=note)
        with quiesced(workspace, pause=False, note=note):
            yield from changes(stack_of(workspace))


def _of_images(store: Store, first: str, second: str, note: Note) -> Iterator[Change]:
    with ExitStack() as held:
        held.enter_context(store.writing())  # no sweep removes what is read
        old, new = (image_stack(store, word, note, held) for word in (first, second))
        yield from changes_between(old, new)
