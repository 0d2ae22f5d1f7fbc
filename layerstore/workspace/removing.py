"""Remove a workspace with everything that was written to it."""

from layerstore.errors import InUse
from layerstore.store.store import Store
from layerstore.workspace import daemon, mounting
from layerstore.workspace.record import open_workspace


def remove_workspace(store: Store, name: str, *, force: bool = False) -> None:
    """Remove the workspace `name`; a mounted one only with `force`, which unmounts it, else InUse."""
    workspace = open_workspace(store, name)
    with workspace.locked():
        workspace = workspace.reread()
        if mounting.state_of(workspace) in {"mounted", "dead"}:
            if not force:
                raise InUse(
                    f"{name} is mounted at {workspace.record.mountpoint}: unmount it first, or use rm -f"
                )
            mounting.umount(workspace, force=True)
        else:
            daemon.settle(workspace.work, name, force=force)
        store.discard(workspace.path)
