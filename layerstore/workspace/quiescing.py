"""A workspace held still to be read: its directories as a stack, and its upper complete on disk."""

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
    """The workspace as the layer code sees it; with `copy` the copies there of its upper and its index."""
    return StackPaths(
        upper=os.fsencode(copy / "upper" if copy else workspace.upper),
        lowers=tuple(os.fsencode(path) for path in workspace.lowers),
        userxattr=layers.uses_userxattr(workspace.store),
        work=os.fsencode(copy or workspace.work),
    )


@contextmanager
def quiesced(workspace: Workspace, *, pause: bool, note: Note) -> Iterator[bool]:
    """A mounted workspace with everything written down to its upper and, with `pause`, nobody writing.
    Whether writers wait for the end of this.
    """
    if mounting.state_of(workspace) != "mounted":
        daemon.settle(workspace.work, workspace.name)
        yield False
        return
    from layerstore.workspace import pausing  # the control socket's client, for mounted ones only

    with pausing.paused(workspace, pause=pause, note=note) as paused:
        yield paused
