"""Adapt an upper to layers that were unpacked again since it was last mounted.

A mount with an index refers to inodes of its lowers and refuses others (ovl_get_indexdir). Everything else in
an upper refers to names. Only the index says which names of a lower file belong to a copy in the upper: these
become hard links in the upper, and the index starts anew.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from layerstore.errors import LayerstoreError
from layerstore.layer import whiteout
from layerstore.layer.stack import StackPaths
from layerstore.store import durable, layers
from layerstore.store.layernames import places_of
from layerstore.store.removing import remove
from layerstore.workspace.record import Workspace
from overlayfs_py.syscalls.attrs import syncfs
from overlayfs_py.syscalls.handles import encode_handle


def fit(workspace: Workspace) -> None:
    """Adapt the upper to the layers as they are unpacked now; under the workspace's lock, not mounted. If
    this is killed at any moment, the next call completes it.
    """
    mark = whiteout.namespace(layers.uses_userxattr(workspace.store)).origin
    try:
        origin = os.getxattr(workspace.upper, mark)
    except OSError as error:
        if error.errno == errno.ENODATA:  # never mounted, or a fresh one
            _clear_index(workspace.work)
        return
    now, former = workspace.lowers, _former_lowers(workspace, origin)
    if former == now:
        return
    if former is None or not _with_links(workspace, former):
        os.removexattr(workspace.upper, mark)
    _clear_index(workspace.work)


def inodes(lowers: Sequence[Path]) -> list[int]:
    """Return the inodes by which `fit` recognises the lower directories at the next mount."""
    return [path.stat().st_ino for path in lowers]


def _former_lowers(workspace: Workspace, origin: bytes) -> list[Path] | None:
    """Return the directories of the last mount, topmost first, including those that were set aside; None when
    one is gone.
    """
    store, known = workspace.store, workspace.record.lower_inodes
    pairs = [
        (place.expect(store), store.layers / place.old) for place in places_of(workspace.record.diff_ids)
    ]
    pairs.reverse()
    if workspace.init.is_dir():
        pairs.insert(workspace.record.init_depth, (workspace.init, workspace.init))
    if known:
        there = [{path.stat().st_ino: path for path in pair if path.is_dir()} for pair in pairs]
        found = [paths[inode] for paths, inode in zip(there, known, strict=False) if inode in paths]
    else:  # mounted by an older version: with layers that were set aside since
        found = [old if old.is_dir() else now for now, old in pairs]
    return found if len(found) == len(pairs) and _is_origin(origin, found[0]) else None


def _is_origin(origin: bytes, lower: Path) -> bool:
    """Whether a mark belongs to this directory; True where that is unknown."""
    with durable.opened_dir(lower) as fd:
        try:
            return origin.endswith(encode_handle(fd, b"")[1])
        except OSError:
            return True


def _with_links(workspace: Workspace, lowers: list[Path]) -> bool:
    """Replace the upper by one with all hard links in it; False when it lacks none or they fail."""
    stack = StackPaths(
        upper=os.fsencode(workspace.upper),
        lowers=tuple(os.fsencode(path) for path in lowers),
        userxattr=layers.uses_userxattr(workspace.store),
        work=os.fsencode(workspace.work),
    )
    with stack.read() as reading:
        if not reading.has_linked_names:
            return False
    from layerstore.layer.write.rotate import rotate  # rarely needed

    store = workspace.store
    with store.temp_dir(store.workspaces) as (temp, fd):
        try:
            rotate(stack, fd, keep=True, privileged=os.geteuid() == 0)
            syncfs(fd)
            durable.exchange(temp, workspace.upper)
        except LayerstoreError:  # such as a name that no layer can contain
            return False
        durable.fsync_dir(workspace.path)
    return True


def _clear_index(work: Path) -> None:
    """Remove the index of an upper whose layers changed, or which was replaced."""
    for name in ("index", "nlink"):
        if (error := remove(work / name)) is not None:
            raise error
