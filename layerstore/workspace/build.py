"""Make a workspace: its directories, the attributes of the root, the init layer."""

from collections.abc import Sequence
from pathlib import Path

from layerstore.callbacks import Note, Progress
from layerstore.environment import format_time
from layerstore.image.find import FoundImage
from layerstore.store import layers
from layerstore.store.places import make_directory
from layerstore.store.removing import remove
from layerstore.store.store import Store
from layerstore.workspace import init as init_layer
from layerstore.workspace import record as records
from layerstore.workspace.record import Bind, Record, Workspace


def make(
    store: Store,
    found: FoundImage,
    *,
    image_word: str,
    name: str | None,
    init: bool,
    binds: Sequence[Bind],
    now_ns: int,
    progress: Progress | None,
    note: Note,
) -> Workspace:
    """Make a new workspace over an image; it appears complete or not at all."""
    image = found.image
    with records.new_workspace(store, name) as (chosen, temp):
        lowers = layers.unpack(store, image.layers, progress=progress, note=note)
        for directory in ("upper", "work", "merged"):
            make_directory(temp / directory, 0o755)
        places = [*(init_layer.DOCKER_PLACES if init else ()), *init_layer.bind_places(binds)]
        if lowers:
            records.copy_root_attributes(lowers[0], temp / "upper")
        if places or not lowers:  # an image without layers needs a lower, too
            _make_init(store, temp, lowers, places)
        record = Record(
            name=chosen,
            image=image_word,
            image_id=image.id,
            manifest=image.descriptor,
            diff_ids=list(image.config.rootfs.diff_ids),
            created=format_time(now_ns),
            init=init,
            binds=list(binds),
        )
        return records.publish(store, temp, record)


def _make_init(store: Store, temp: Path, lowers: list[Path], places: Sequence[init_layer.InitPath]) -> None:
    init, work = temp / "init", temp / "init-work"
    make_directory(init, 0o755)
    if not lowers:
        lowers = [temp / "merged"]  # empty
    records.copy_root_attributes(lowers[0], init)
    if not places:
        return
    make_directory(work)
    init_layer.fill(init, work, lowers, places, userxattr=layers.uses_userxattr(store))
    remove(work)
    # Making the places has changed the times of the root, which the mount must not show.
    records.copy_root_attributes(lowers[0], init)
