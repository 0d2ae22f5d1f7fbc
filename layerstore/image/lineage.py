"""Which images of the store an image was made from.

No document says it. docker's rule, when it loads images, is ours: a parent's history and layers are the
beginning of its child's.
"""

from functools import lru_cache

from layerstore.digest import Digest
from layerstore.image import find
from layerstore.image.image import Image
from layerstore.model import History
from layerstore.store import index
from layerstore.store.store import Store

_Past = tuple[tuple[History, ...], tuple[Digest, ...]]


def ancestors(store: Store, image: Image) -> dict[int, Digest]:
    """The image IDs of those in the store, by the number of steps of the history that they share."""
    steps, layers = _past(image)
    entries = tuple(entry.digest for entry in index.read(store).manifests)
    return {
        len(own): image_id
        for image_id, (own, below) in _pasts(store, entries).items()
        if 0 < len(own) < len(steps) and own == steps[: len(own)] and below == layers[: len(below)]
    }


@lru_cache(maxsize=1)  # `inspect` of many images asks for each of them
def _pasts(store: Store, entries: tuple[Digest, ...]) -> dict[Digest, _Past]:
    return {found.image.id: _past(found.image) for found in find.all_images(store, [])}


def _past(image: Image) -> _Past:
    return tuple(step for step, _ in image.steps()), tuple(image.config.rootfs.diff_ids)
