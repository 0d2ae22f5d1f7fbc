"""Check that unpacked layers equal their blobs, each over the layers below it.

The blob is unpacked again beside the layer, over layers that were found sound before, and the two are
compared. A layer of several stacks is checked in the first; one that was set aside (`layernames`) is sound if
it is right for any.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from layerstore.callbacks import Note
from layerstore.digest import Digest
from layerstore.errors import LayerstoreError, explain, printable
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, layers, treecheck
from layerstore.store.layernames import Place, places_of
from layerstore.store.store import Store

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Fault(NamedTuple):
    """A directory that differs from its blob, and how."""

    path: Path
    diff_id: Digest
    why: str


@dataclass(frozen=True, slots=True)
class _Stacked:
    """A layer of an image with the layers below it."""

    place: Place
    blob: Descriptor
    below: "_Stacked | None"
    depth: int


class LayerCheck:
    """Checks the layers of the images that are added; `faults` yields the unsound directories."""

    def __init__(self, store: Store, note: Note) -> None:
        self._store = store
        self._note = note
        self._stacks: dict[str, _Stacked] = {}  # by their own names
        self._sound: dict[str, Path] = {}  # by the name that it has or should have
        self._faults: dict[Path, Fault] = {}
        self._judged: set[Path] = set()

    def add(self, image_layers: Iterable[tuple[Descriptor, Digest]]) -> None:
        """Add the layers of one image, bottom first."""
        pairs = list(image_layers)
        below: _Stacked | None = None
        for depth, (place, (blob, _)) in enumerate(zip(places_of(d for _, d in pairs), pairs, strict=True)):
            below = self._stacks.setdefault(place.own, _Stacked(place, blob, below, depth))

    def faults(self) -> Iterator[Fault]:
        """Check the unpacked layers of these images. Layers of no image are not checked."""
        for stacked in sorted(self._stacks.values(), key=lambda one: (one.depth, one.place.own)):
            paths = list(self._unjudged(stacked.place))
            if paths:
                self._judge(stacked, paths)
        yield from (fault for _, fault in sorted(self._faults.items()))

    def _unjudged(self, place: Place) -> Iterator[Path]:
        for name in (place.own, place.shared, place.old):
            path = self._store.layers / name
            if path.is_dir() and path not in self._judged:
                yield path

    def _judge(self, stacked: _Stacked, paths: Sequence[Path]) -> None:
        diff_id = stacked.place.diff_id
        lowers = self._lowers(stacked)
        try:
            with (
                self._store.temp_dir(self._store.layers) as (_, temp_fd),
                blobs.open_blob(self._store, stacked.blob) as stream,
            ):
                result = layers.apply(self._store, stream, temp_fd, lowers=lowers or ())
                if result.depends and lowers is None:
                    self._skip(diff_id)
                    return
                for path in paths:
                    self._compare(stacked.place, path, temp_fd, result.depends)
        except LayerstoreError as error:
            if lowers is None:
                self._skip(diff_id)
                return
            for path in paths:
                self._fails(stacked.place, path, f"its blob cannot be unpacked: {error}")
        except OSError as error:
            if error.errno not in durable.NO_ROOM | {errno.EROFS}:
                raise
            why = "not compared with its blob, as there is no room"
            self._note(f"{why}: layer {diff_id}: {explain(error)}")
            for path in paths:  # the layers above can only be checked over it
                self._sound.setdefault(path.name, path)

    def _skip(self, diff_id: Digest) -> None:
        self._note(f"not checked: layer {diff_id}: a layer below it is not unpacked, or is damaged")

    def _lowers(self, stacked: _Stacked) -> list[Path] | None:
        """Return the layers below, topmost first; None when one of them is missing or unsound."""
        found = []
        below = stacked.below
        while below is not None:
            path = self._sound.get(below.place.own) or self._sound.get(below.place.shared)
            if path is None:
                return None
            found.append(path)
            below = below.below
        return found

    def _compare(self, place: Place, path: Path, temp_fd: int, depends: bool) -> None:
        if depends and path.name == place.shared:
            self._fails(
                place,
                path,
                "it depends on the layers below it, so images must not share it",
            )
            return
        fd = os.open(path, _DIR)
        try:
            difference = treecheck.first_difference(fd, temp_fd)
        finally:
            os.close(fd)
        if difference is not None:
            self._fails(place, path, f"/{printable(difference)} differs from its blob")
            return
        self._sound.setdefault(place.own if depends else place.shared, path)
        self._judged.add(path)
        self._faults.pop(path, None)

    def _fails(self, place: Place, path: Path, why: str) -> None:
        self._faults.setdefault(path, Fault(path, place.diff_id, why))
        if path.name != place.old:  # which may be right for another stack
            self._judged.add(path)
