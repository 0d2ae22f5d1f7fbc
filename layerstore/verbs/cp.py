"""``cp``: files and directories between the host and what a workspace shows, by ``docker cp``'s rules."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from layerstore.callbacks import Note, Progress, note_or_log
from layerstore.digest import Readable
from layerstore.errors import InUse, LayerstoreError
from layerstore.store.durable import opened_dir
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.undoing import undone
from layerstore.workspace import mounting, resolving
from layerstore.workspace.copying import Copier
from layerstore.workspace.record import Workspace, open_workspace
from layerstore.workspace.resolving import CopySide
from layerstore.workspace.tarring import Archiver
from layerstore.workspace.untarring import Extractor
from overlayfs_py.service.subprocesses import postponed


def cp(
    source: str | Readable,
    target: str | IO[bytes],
    *,
    archive: bool = False,
    follow_link: bool = False,
    root: RootPath = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> int:
    """Copy `source` to `target`, each a path of the host or ``NAME:PATH`` in a workspace; returns the bytes.

    A directory is copied into an existing directory under its own name; with ``/.`` at its end, its contents
    are. A stream in place of a path is a tar: its entries are unpacked into the directory `target`, or
    `source` is written to it under its own name. Links in a workspace never lead out of it. The caller owns
    the copies unless `archive` keeps owners. A workspace that is not mounted is mounted for the duration.
    """
    options = _CopyOptions(archive, follow_link, progress, note_or_log(note))
    words = [word for word in (source, target) if isinstance(word, str)]
    if not words:
        raise LayerstoreError("one of the two must be a path in a workspace (NAME:PATH)")
    with ExitStack() as held:
        roots = _Roots(open_store(root), words, held, options.note)
        sides = [roots.side(word) for word in words]
        if not isinstance(source, str):
            return _from_tar(source, sides[0], options)
        if not isinstance(target, str):
            return _to_tar(sides[0], target, options)
        return _between(sides[0], sides[1], options)


@dataclass(frozen=True, slots=True)
class _CopyOptions:
    archive: bool
    follow_link: bool
    progress: Progress | None
    note: Note


class _Roots:
    """The root directories that the paths are in: the host's, and those of workspaces, mounted meanwhile."""

    def __init__(self, store: Store, words: Sequence[str], held: ExitStack, note: Note) -> None:
        names = {split(word)[0] for word in words}
        if names == {None}:
            raise LayerstoreError("neither path is in a workspace (NAME:PATH): use cp(1)")
        self._roots: dict[str | None, int] = {None: held.enter_context(opened_dir(Path("/"), os.O_PATH))}
        for name in sorted(name for name in names if name is not None):  # one order: no deadlock
            self._roots[name] = held.enter_context(_shown(open_workspace(store, name), note))

    def side(self, word: str) -> CopySide:
        """Return the path in its root. Raises LayerstoreError when the path is empty."""
        name, path = split(word)
        if not path:
            raise LayerstoreError(f"{word!r}: the path is missing")
        raw = os.fsencode(path)
        if name is None and not raw.startswith(b"/"):
            raw = os.path.join(os.getcwdb(), raw)
        return CopySide(self._roots[name], raw if raw.startswith(b"/") else b"/" + raw, word)


def _between(src: CopySide, dst: CopySide, options: _CopyOptions) -> int:
    with ExitStack() as held:
        src_fd = resolving.open_source(src, follow=options.follow_link)
        held.callback(os.close, src_fd)
        is_dir = stat.S_ISDIR(os.fstat(src_fd).st_mode)
        copier = Copier(options.archive, options.note, options.progress)
        copier.copy(src_fd, resolving.find_target(dst, held, source=src, source_is_dir=is_dir))
        return copier.copied


def _to_tar(src: CopySide, out: IO[bytes], options: _CopyOptions) -> int:
    src_fd = resolving.open_source(src, follow=options.follow_link)
    try:
        archiver = Archiver(out, options.note, options.progress)
        archiver.write(src_fd, b"." if src.is_contents else src.name)
        return archiver.written
    finally:
        os.close(src_fd)


def _from_tar(stream: Readable, dst: CopySide, options: _CopyOptions) -> int:
    resolving.check_directory(dst)
    extractor = Extractor(dst.root_fd, dst.path, options.archive, options.progress)
    extractor.extract(stream)
    return extractor.written


def split(word: str) -> tuple[str | None, str]:
    """Split ``NAME:PATH`` into workspace and path; None and the path for the host's, such as ``./a:b``."""
    name, colon, path = word.partition(":")
    if not colon or word.startswith(("/", ".")) or "/" in name:
        return None, word
    return name, path


@contextmanager
def _shown(workspace: Workspace, note: Note) -> Iterator[int]:
    """Yield a descriptor of the workspace's merged root; mounts the workspace for the duration if needed."""
    with workspace.locked(shared=True):
        workspace = workspace.reread()
        if mounting.state_of(workspace) == "mounted":
            with opened_dir(Path(str(workspace.record.mountpoint)), os.O_PATH) as fd:
                yield fd
            return
    with workspace.locked() as lock_fd:
        before = workspace.reread()
        state = mounting.state_of(before)
        if state == "mounted":
            raise LayerstoreError(f"{workspace.name} is being mounted: try again")
        if state == "dead":
            place = before.record.mountpoint
            raise InUse(f"{workspace.name}: a dead mount is at {place}; unmount it first")
        wait = True
        with undone(lambda: _as_before(before, wait=wait)):
            try:
                mounted = mounting.mount(before, before.merged, lock_fd=lock_fd, progress=None, note=note)
                with opened_dir(Path(str(mounted.record.mountpoint)), os.O_PATH) as fd:
                    yield fd
            except BaseException as error:
                wait = isinstance(error, Exception)
                raise


def _as_before(before: Workspace, *, wait: bool) -> None:
    """Unmount a workspace that was not mounted `before`, and restore its record; call it under the lock."""
    now = before.reread()
    with postponed():
        if mounting.state_of(now) in {"mounted", "dead"}:
            now = mounting.umount(now, force=True, wait=wait)
        if now.record != before.record:
            now.save(mountpoint=before.record.mountpoint, mounted_at=before.record.mounted_at)
