"""``commit``: a workspace's upper directory as a new layer, and the image that has it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from layerstore import environment, limits, media, reference
from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.digest import Digest
from layerstore.errors import InUse, LayerstoreError, checked_text, explain
from layerstore.image import find, human, instructions, write
from layerstore.image.image import Image, load
from layerstore.layer.write.commit import LayerResult, write_layer
from layerstore.media import Compression
from layerstore.model import Descriptor
from layerstore.store import blobs
from layerstore.store.opening import RootPath, open_store
from layerstore.workspace import mounting, rotation, snapshot
from layerstore.workspace.quiescing import quiesced, stack_of
from layerstore.workspace.record import Workspace, open_workspace, root_is_changed
from layerstore.workspace.rotation import WrittenLayer

_NO_COMMAND = "layerstore commit"


def commit(
    name: str,
    ref: str | None = None,
    *,
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
    compression: Compression = "gzip",
    squash_unchanged: bool = False,
    sparse: bool = False,
    chain: bool = False,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Digest:
    """Write what a workspace changes as one layer on top of its image; returns the new image's ID.

    `changes` are Dockerfile instructions for the new image's configuration. `pause` holds writers of a
    mounted workspace meanwhile. `squash_unchanged` leaves out files that differ from the image in their time
    only, and notes how many. `sparse` keeps holes in files, in a form that docker 20.10 and podman 4.3 unpack
    but cannot pass on; else they become zeros. `chain` continues the workspace over the new image, with an
    empty upper; a mounted workspace is unmounted meanwhile, or InUse is raised if it is in use. On failure
    the store stays unchanged. SOURCE_DATE_EPOCH makes the result reproducible.
    """
    store, note = open_store(root), note_or_log(note)
    target = reference.parse_tag(ref) if ref else None
    step = write.HistoryDetails(
        created=environment.creation_time(),
        author=checked_text(author, "the author"),
        comment=checked_text(message, "the message"),
    )
    with ExitStack() as held:
        workspace = open_workspace(store, name)
        if chain:
            held.enter_context(rotation.unmounted(workspace, note=note))
        held.enter_context(workspace.locked(shared=not chain))
        held.enter_context(store.writing())
        workspace = workspace.reread()
        if chain and mounting.state_of(workspace) in {"mounted", "dead"}:
            raise InUse(f"another process has just mounted {name} again")
        parent = load(store, workspace.record.manifest)
        instructions.apply(parent.config.config or {}, changes)  # fails early for a wrong one
        mounting.prepare_layers(workspace, note=note)
        written = _write_layer(
            workspace,
            compression,
            pause=pause,
            squash=squash_unchanged,
            sparse=sparse,
            progress=progress,
            note=note,
        )
        layer = None if written is None else _described(written, compression)
        step = msgspec.structs.replace(step, created_by=_command(parent))
        image_id = write.write_child(store, parent, layer, step, changes=changes, ref=target)
        if chain:
            _go_on(workspace, image_id, ref, written, note)
        return image_id


def _command(parent: Image) -> str:
    """Return what docker records as the layer's command: what a container of the parent runs."""
    runtime = parent.config.config or {}
    if runtime.get("Entrypoint") or runtime.get("Cmd"):
        return " ".join(runtime.get("Cmd") or ())
    return _NO_COMMAND  # docker makes no container of such an image


def _go_on(
    workspace: Workspace, image_id: Digest, ref: str | None, written: WrittenLayer | None, note: Note
) -> None:
    """Continue the workspace over the image that was just made from it."""
    try:
        image = find.find(workspace.store, image_id).image
        rotation.go_on(workspace, image, ref or image_id, written, note=note)
    except (LayerstoreError, OSError) as error:
        why = f"created {image_id}, but {workspace.name} keeps its old image"
        raise LayerstoreError(f"{why}: {explain(error)}") from error


def _write_layer(
    workspace: Workspace,
    compression: Compression,
    *,
    pause: bool,
    squash: bool,
    sparse: bool,
    progress: Progress | None,
    note: Note,
) -> WrittenLayer | None:
    """Write the layer's blob to the store; returns None and keeps no blob when nothing has changed.

    Writers wait while the upper is read or, where its file system can share blocks, only while it is cloned.
    """
    epoch = environment.source_date_epoch()
    with blobs.new_blob(workspace.store) as blob, ExitStack() as copied:

        def write_from(copy: Path | None) -> LayerResult:
            return write_layer(
                stack_of(workspace, copy),
                blob.file,
                compression=compression,
                source_date_epoch=epoch,
                squash_unchanged=squash,
                sparse=sparse,
                limits=limits.current(),
                progress=progress,
            )

        result = None
        with quiesced(workspace, pause=pause, note=note) as paused:
            copy = copied.enter_context(snapshot.cloned(workspace)) if paused else None
            if copy is None:
                result = write_from(None)
            root_changed = root_is_changed(workspace, times=not squash)
        if result is None:
            result = write_from(copy)
        empty = result.entries <= 1 and not root_changed  # the root is always written, changed or not
        for line in result.notes:
            note(line)
        if squash:
            note(_squashed(result))
        if empty:
            return None
        blob.publish(result.digest, result.size)
    return WrittenLayer(result=result, squash_unchanged=squash, source_date_epoch=epoch)


def _described(written: WrittenLayer, compression: Compression) -> write.NewLayer:
    """Return the layer as a manifest describes it."""
    digest, size = written.result.digest, written.result.size
    descriptor = Descriptor(media_type=media.layer_type(compression), digest=digest, size=size)
    return write.NewLayer(descriptor=descriptor, diff_id=written.result.diff_id)


def _squashed(result: LayerResult) -> str:
    """Return the note that says what was left out."""
    files = "file" if result.unchanged == 1 else "files"
    return f"left out {result.unchanged} unchanged {files} ({human.size(result.unchanged_size)})"
