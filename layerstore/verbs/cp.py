"""``cp``: files and directories between the host and what a workspace shows, by ``docker cp``'s rules."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from layerstore.errors import LayerstoreError
from layerstore.verbs.setting import Note, Progress, Root, noting, open_store
from layerstore.workspace import mounting, resolving
from layerstore.workspace.copying import Copier
from layerstore.workspace.record import Workspace, open_workspace
from layerstore.workspace.resolving import Side


def cp(
    source: str,
    target: str,
    *,
    archive: bool = False,
    follow_link: bool = False,
    root: Root = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> int:
    """Copy `source` to `target`, each a path of the host or ``NAME:PATH`` in a workspace; returns the bytes
    copied.

    A directory goes into an existing directory under its name, or with ``/.`` at its end its contents do.
    Links in a workspace never lead out of it. The copies are the caller's unless `archive` keeps owners.
    A workspace that is not mounted is for the duration.
    """
    store, note = open_store(root), noting(note)
    names = [split(word)[0] for word in (source, target)]
    with ExitStack() as held:
        host = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, host)
        roots: dict[str | None, int] = {None: host}
        for name in sorted({name for name in names if name is not None}):
            roots[name] = held.enter_context(_shown(open_workspace(store, name), note))
        if names == [None, None]:
            raise LayerstoreError("neither path is in a workspace (NAME:PATH): use cp(1)")
        src, dst = (_side(word, roots) for word in (source, target))
        src_fd = resolving.open_source(src, follow=follow_link)
        held.callback(os.close, src_fd)
        is_dir = stat.S_ISDIR(os.fstat(src_fd).st_mode)
        copier = Copier(archive, note, progress)
        copier.copy(src_fd, resolving.find_target(dst, held, source=src, source_is_dir=is_dir))
        return copier.copied


def split(word: str) -> tuple[str | None, str]:
    """Workspace and path; no workspace for a path of the host (docker's rule: ``./a:b`` is one)."""
    name, colon, path = word.partition(":")
    if not colon or word.startswith(("/", ".")) or "/" in name:
        return None, word
    return name, path


def _side(word: str, roots: dict[str | None, int]) -> Side:
    name, path = split(word)
    if not path:
        raise LayerstoreError(f"{word!r}: the path is missing")
    raw = os.fsencode(path)
    if name is None and not raw.startswith(b"/"):
        raw = os.path.join(os.getcwdb(), raw)
    return Side(roots[name], raw if raw.startswith(b"/") else b"/" + raw, word)


@contextmanager
def _shown(workspace: Workspace, note: Note) -> Iterator[int]:
    """The root directory of what a workspace shows, mounted for as long as this is open."""
    with workspace.locked(shared=True):
        workspace = workspace.reread()
        if mounting.state_of(workspace) == "mounted":
            with _opened(str(workspace.record.mountpoint)) as fd:
                yield fd
            return
    with workspace.locked():
        before = workspace.reread()
        if mounting.state_of(before) == "mounted":
            raise LayerstoreError(f"{workspace.name} is being mounted: try again")
        mounted = mounting.mount(before, before.merged, progress=None, note=note)
        try:
            with _opened(str(mounted.record.mountpoint)) as fd:
                yield fd
        finally:
            after = mounting.umount(mounted, force=True)
            after.save(mountpoint=before.record.mountpoint, mounted_at=before.record.mounted_at)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
