"""Which images of the store an image was made from.

No document says it. docker's rule, when it loads images, is ours: a parent's history and layers are the
beginning of its child's.
"""

from layerstore.digest import Digest
from layerstore.image import find
from layerstore.image.image import Image
from layerstore.model import History
from layerstore.store.store import Store


def ancestors(store: Store, image: Image) -> dict[int, Digest]:
    """The image IDs of those in the store, by the number of steps of the history that they share."""
    steps, layers = _past(image)
    found: dict[int, Digest] = {}
    for other in find.readable(store):
        own, below = _past(other.image)
        if 0 < len(own) < len(steps) and own == steps[: len(own)] and below == layers[: len(below)]:
            found[len(own)] = other.image.id
    return found


def _past(image: Image) -> tuple[list[History], list[Digest]]:
    return [step for step, _ in image.steps()], image.config.rootfs.diff_ids
