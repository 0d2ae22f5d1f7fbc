"""``create``: a workspace over an image."""

import time
from collections.abc import Sequence

from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.image import find, platforms
from layerstore.store.opening import RootPath, open_store
from layerstore.workspace import binds, build


def create(
    image: str,
    *,
    name: str | None = None,
    init: bool = False,
    volumes: Sequence[str] = (),
    platform: str | None = None,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> str:
    """Make a workspace, a writable layer over `image`; returns its name, made up unless `name` is given.

    `init` puts docker's init layer between the two; `volumes` (``HOST:PATH[:ro]``) are bound at every mount.
    `platform` chooses from an image for several platforms.
    """
    store = open_store(root)
    wanted = platforms.parse_optional(platform)
    places = [binds.parse(text) for text in volumes]
    with store.writing():  # keeps the image's blobs and layers until the workspace refers to them
        found = find.find(store, image, wanted)
        workspace = build.make(
            store,
            found,
            image_word=image,
            name=name,
            init=init,
            binds=places,
            now_ns=time.time_ns(),
            progress=progress,
            note=note_or_log(note),
        )
    return workspace.name
