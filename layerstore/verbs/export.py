"""``export``: the merged tree of a workspace or an image as one plain tar."""

from contextlib import ExitStack

from layerstore import environment, limits
from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import platforms
from layerstore.image.unpacked import image_stack
from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import export_tree
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.transport.output import OutputTarget, open_output
from layerstore.workspace import mounting
from layerstore.workspace.quiescing import quiesced, stack_of
from layerstore.workspace.record import Workspace, open_workspace


def export(
    name: str,
    output: OutputTarget,
    *,
    platform: str | None = None,
    sparse: bool = False,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> None:
    """Write the tree of the workspace of that name, else of the image, as a tar to a path or a stream.

    A path gets the complete tar or nothing. As with docker, bind mounts are left out. SOURCE_DATE_EPOCH
    clamps times. `platform` chooses from an image for several platforms. `sparse` keeps holes (PAX sparse
    1.0).
    """
    store, note = open_store(root), note_or_log(note)
    wanted = platforms.parse_optional(platform)
    with ExitStack() as held:
        workspace = None if wanted is not None else _workspace(store, name)
        if workspace is None:
            held.enter_context(store.writing())  # no sweep removes what is read
            stack = image_stack(store, name, note, held, wanted)
        else:
            stack = _quiet_stack(workspace, note, held)
        out = held.enter_context(open_output(output))
        result = export_tree(
            stack,
            out,
            source_date_epoch=environment.source_date_epoch(),
            sparse=sparse,
            limits=limits.current(),
            progress=progress,
        )
    for line in result.notes:
        note(line)


def _quiet_stack(workspace: Workspace, note: Note, held: ExitStack) -> StackPaths:
    held.enter_context(workspace.locked(shared=True))
    workspace = workspace.reread()
    mounting.prepare_layers(workspace, note=note)
    held.enter_context(quiesced(workspace, pause=False, note=note))
    return stack_of(workspace)


def _workspace(store: Store, name: str) -> Workspace | None:
    """Return the workspace of that name; None when the name can only be an image's."""
    try:
        return open_workspace(store, name)
    except NotFound:
        return None
    except LayerstoreError:
        if "/" not in name and ":" not in name:
            raise
        return None  # a name that no workspace can have
