"""Continue a workspace over the image that was just committed: its changes are in the new layer, its upper is
empty.

A complete new workspace directory is made beside the old one, and the two exchange names: this one rename is
the step from the old state to the new one. From then on the record names the new image. The new layer may
still be missing, as any layer may, and is unpacked from its blob when it is next needed. Moving the old
upper's files to the layer's directory only saves that work: if it fails or is killed, nothing is lost.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from layerstore.callbacks import Note
from layerstore.errors import InUse, LayerstoreError, explain
from layerstore.image.image import Image
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import LayerResult
from layerstore.store import blobs, durable, layers, locking
from layerstore.store.layernames import places_of
from layerstore.store.places import make_directory
from layerstore.store.removing import refuse_mounts
from layerstore.undoing import undone
from layerstore.workspace import mounting
from layerstore.workspace import record as records
from layerstore.workspace.record import Record, Workspace
from overlayfs_py.service.subprocesses import postponed
from overlayfs_py.syscalls.attrs import syncfs


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLayer:
    """A layer that was written from a workspace's upper, and with which options."""

    result: LayerResult
    squash_unchanged: bool
    source_date_epoch: int | None


@contextmanager
def unmounted(workspace: Workspace, *, note: Note) -> Iterator[None]:
    """Yield the workspace without its mount, which is made again at the end, at the same path.

    InUse, with nothing changed, when the mount is in use. Takes the workspace's lock.
    """
    place: Path | None = None

    def mount_again() -> None:
        if place is not None:
            _mount_again(workspace, place, note)

    with undone(mount_again):
        with workspace.locked():
            workspace = workspace.reread()
            state = mounting.state_of(workspace)
            if state == "dead":
                raise InUse(
                    f"{workspace.name}: a dead mount is at {workspace.record.mountpoint}; unmount it first"
                )
            try:
                if state == "mounted":
                    place = Path(str(workspace.record.mountpoint))
                    with (
                        postponed()
                    ):  # without interruption: it can be mounted again only when its daemon is gone
                        mounting.umount(workspace, note=_refuse)
                refuse_mounts(workspace.path)
            except InUse as error:
                raise InUse(
                    f"{workspace.name} cannot continue over a new image while it is in use: {error}"
                ) from None
        yield


def _refuse(remark: str) -> None:
    """It is unmounted here, but still in use elsewhere."""
    raise InUse(remark)


def _mount_again(workspace: Workspace, place: Path, note: Note) -> None:
    """Mount it again, unless it is mounted."""
    try:
        with workspace.locked() as lock_fd:
            workspace = workspace.reread()
            if mounting.state_of(workspace) != "mounted":
                mounting.mount(workspace, place, lock_fd=lock_fd, progress=None, note=note)
    except (LayerstoreError, OSError) as error:
        note(f"{workspace.name} could not be mounted again at {place}: {explain(error)}")


def go_on(workspace: Workspace, image: Image, word: str, written: WrittenLayer | None, *, note: Note) -> None:
    """Put the workspace over `image`, which is its own image and the layer `written` (None: no layer was
    needed).

    Under the workspace's exclusive lock, which stays on the old directory, and `Store.writing`; not mounted.
    `word` is the user's name of the image.
    """
    store = workspace.store
    record = msgspec.structs.replace(
        workspace.record,
        image=word,
        image_id=image.id,
        manifest=image.descriptor,
        diff_ids=list(image.config.rootfs.diff_ids),
        init_depth=workspace.record.init_depth + (written is not None),
        mounted_at=None,
    )
    with store.temp_dir(store.workspaces) as (temp, fd):
        _fill(workspace, temp, record, written)
        syncfs(fd)
        durable.exchange(temp, workspace.path)
        # `temp` is the old workspace now: still locked by the caller, and removed at the end. If something
        # fails from here on, the workspace is over the new image.
        try:
            durable.fsync_dir(store.workspaces)
            if written is not None:
                _make_layer(workspace, temp, written)
        except (LayerstoreError, OSError) as error:
            why = f"as its files could not be moved: {explain(error)}"
            note(f"the new layer is unpacked at the next mount, {why}")


def _fill(workspace: Workspace, temp: Path, record: Record, written: WrittenLayer | None) -> None:
    """Make the new workspace: only the record, the root's attributes and the init layer."""
    for directory in ("upper", "work", "merged"):
        make_directory(temp / directory, 0o755)
    records.copy_root_attributes(workspace.lowers[0] if written is None else workspace.upper, temp / "upper")
    if written is not None and written.source_date_epoch is not None:
        status = (temp / "upper").stat()
        mtime_ns = min(status.st_mtime_ns, written.source_date_epoch * 1_000_000_000)
        os.utime(temp / "upper", ns=(status.st_atime_ns, mtime_ns))
    if workspace.init.is_dir():
        make_directory(temp / "init", 0o755)
        below = workspace.lowers[workspace.record.init_depth + 1 :]
        stack = _stack(workspace, workspace.init, below)
        with durable.opened_dir(temp / "init") as fd:
            _rotate(stack, fd, keep=True)
    records.write(temp, record)


def _make_layer(workspace: Workspace, old: Path, written: WrittenLayer) -> None:
    """Move the files of the old upper to the directory of the new layer, unless it exists."""
    store = workspace.store
    *_, place = places_of([*workspace.record.diff_ids, written.result.diff_id])
    if place.find(store):
        return
    stack = _stack(workspace, old / "upper", workspace.lowers, work=old / "work")
    # Another process that needs the layer waits on its blob, as for unpacking.
    with (
        locking.locked(blobs.path_of(store, written.result.digest)),
        store.temp_dir(store.layers) as (temp, fd),
    ):
        count = _rotate(
            stack,
            fd,
            source_date_epoch=written.source_date_epoch,
            squash_unchanged=written.squash_unchanged,
        )
        if count != written.result.entries:
            raise LayerstoreError(f"{count} entries instead of {written.result.entries}")
        layers.publish(store, temp, fd, place, depends=False)  # such a tar is complete


def _rotate(
    stack: StackPaths,
    fd: int,
    *,
    source_date_epoch: int | None = None,
    squash_unchanged: bool = False,
    keep: bool = False,
) -> int:
    """Call `rotate`, imported when needed: every commit imports this module."""
    from layerstore.layer.write.rotate import rotate

    return rotate(
        stack,
        fd,
        source_date_epoch=source_date_epoch,
        squash_unchanged=squash_unchanged,
        keep=keep,
        privileged=os.geteuid() == 0,
    )


def _stack(workspace: Workspace, upper: Path, lowers: Sequence[Path], work: Path | None = None) -> StackPaths:
    return StackPaths(
        upper=os.fsencode(upper),
        lowers=tuple(os.fsencode(path) for path in lowers),
        userxattr=layers.uses_userxattr(workspace.store),
        work=None if work is None else os.fsencode(work),
    )
