"""An image's layers as directories to read."""

import os
from contextlib import ExitStack

from layerstore.callbacks import Note
from layerstore.image import find
from layerstore.layer.stack import StackPaths
from layerstore.model import Platform
from layerstore.store import layers
from layerstore.store.store import Store


def image_stack(
    store: Store, word: str, note: Note, held: ExitStack, wanted: Platform | None = None
) -> StackPaths:
    """Unpack an image's layers and return them as a stack. Call it under `Store.writing`.

    The stack is valid while `held` is open.
    """
    directories = layers.unpack(store, find.find(store, word, wanted).image.layers, note=note)
    if not directories:
        directories = [held.enter_context(store.temp_dir(store.layers))[0]]
    paths = [os.fsencode(path) for path in directories]
    return StackPaths(upper=paths[0], lowers=tuple(paths[1:]), userxattr=layers.uses_userxattr(store))
