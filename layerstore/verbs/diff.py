"""``diff``: what a workspace changes in its image, or what makes one image the other."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

from layerstore.image import find
from layerstore.layer.stack import Stack
from layerstore.layer.write.diff import Change, changes, changes_between
from layerstore.model import Platform
from layerstore.store import layers
from layerstore.store.store import Store
from layerstore.verbs.commit import quiesced, stack_of
from layerstore.verbs.setting import Note, Root, noting, open_store
from layerstore.workspace import mounting
from layerstore.workspace.record import open_workspace


def diff(
    first: str, second: str | None = None, *, root: Root = None, note: Note | None = None
) -> Iterator[Change]:
    """The changes of the workspace `first`, or from the image `first` to the image `second`, in docker's
    order.
    """
    store = open_store(root)
    if second is None:
        return _of_workspace(store, first, noting(note))
    return _of_images(store, first, second, noting(note))


def _of_workspace(store: Store, name: str, note: Note) -> Iterator[Change]:
    workspace = open_workspace(store, name)
    with workspace.locked(shared=True):
        workspace = workspace.reread()
        mounting.prepare_layers(workspace, note=note)
        with quiesced(workspace, pause=False, note=note):
            yield from changes(stack_of(workspace))


def _of_images(store: Store, first: str, second: str, note: Note) -> Iterator[Change]:
    with ExitStack() as held:
        held.enter_context(store.writing())  # nobody sweeps what is read
        old, new = (image_stack(store, word, note, held) for word in (first, second))
        yield from changes_between(old, new)


def image_stack(
    store: Store, word: str, note: Note, held: ExitStack, wanted: Platform | None = None
) -> Stack:
    """An image's layers, unpacked; under `Store.writing`, and for as long as `held` is open."""
    directories = layers.unpack(store, find.find(store, word, wanted).image.layers, note=note)
    if not directories:
        directories = [held.enter_context(store.temp_dir(store.layers))[0]]
    paths = [os.fsencode(path) for path in directories]
    return Stack(upper=paths[0], lowers=tuple(paths[1:]), userxattr=layers.uses_userxattr(store))
