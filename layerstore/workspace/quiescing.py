"""Prepare a workspace for reading: its directories as a stack, its upper complete on disk, writers held."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.callbacks import Note
from layerstore.layer.stack import StackPaths
from layerstore.store import layers
from layerstore.workspace import daemon, mounting
from layerstore.workspace.record import Workspace


def stack_of(workspace: Workspace, copy: Path | None = None) -> StackPaths:
    """Return the workspace's directories as a stack; with `copy`, the clones there of its upper and index."""
    return StackPaths(
        upper=os.fsencode(copy / "upper" if copy else workspace.upper),
        lowers=tuple(os.fsencode(path) for path in workspace.lowers),
        userxattr=layers.uses_userxattr(workspace.store),
        work=os.fsencode(copy or workspace.work),
    )


@contextmanager
def quiesced(workspace: Workspace, *, pause: bool, note: Note) -> Iterator[bool]:
    """Flush a mounted workspace's writes to its upper and, with `pause`, hold its writers.

    Yields whether writers are held until the end. A workspace that is not mounted only loses a dead daemon.
    """
    if mounting.state_of(workspace) != "mounted":
        daemon.settle(workspace.work, workspace.name)
        yield False
        return
    from layerstore.workspace import pausing  # the control socket's client, only needed for mounts

    with pausing.paused(workspace, pause=pause, note=note) as paused:
        yield paused
