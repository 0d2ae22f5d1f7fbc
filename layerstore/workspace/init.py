"""The init layer: mount targets of a running system, kept out of every commit because they are in a lower.

It is between the image and the upper, so its unchanged files are never part of a diff. It has docker's own
set (with ``--init``) and the mount targets of ``-v``. The union makes it, without a mount: parent directories
are copied up from the image with all their attributes.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.errors import LayerstoreError
from layerstore.workspace.record import Bind

if TYPE_CHECKING:
    from overlayfs_py.union.overlay import Node, Overlay

_FORBIDDEN_TARGETS = ("proc", "sys")


@dataclass(frozen=True, slots=True)
class InitPath:
    """A path in the init layer: a directory, an empty file or a symbolic link."""

    path: str
    kind: int
    link: str = ""
    replace: bool = False  # replaces the image's own file
    needed: bool = False  # otherwise skipped where the image makes it impossible


DOCKER_PLACES = (
    *(InitPath(path, stat.S_IFDIR) for path in ("/dev/pts", "/dev/shm", "/proc", "/sys")),
    InitPath("/.dockerenv", stat.S_IFREG, replace=True),
    InitPath("/dev/console", stat.S_IFREG, replace=True),
    InitPath("/etc/hostname", stat.S_IFREG, replace=True),
    InitPath("/etc/hosts", stat.S_IFREG, replace=True),
    InitPath("/etc/mtab", stat.S_IFLNK, link="/proc/mounts", replace=True),
    InitPath("/etc/resolv.conf", stat.S_IFREG, replace=True),
)


def bind_places(binds: Sequence[Bind]) -> Iterator[InitPath]:
    """Return the mount targets: a directory for a directory, an empty file for anything else."""
    for bind in binds:
        yield InitPath(bind.target, stat.S_IFDIR if os.path.isdir(bind.source) else stat.S_IFREG, needed=True)


def check_target(target: str) -> str:
    """Return a mount target in its normal form; LayerstoreError for targets where mounts are unsafe."""
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if not target.startswith("/") or ".." in parts or not parts:
        raise LayerstoreError(f"invalid mount target {target!r}: use an absolute path below /")
    if parts[0] in _FORBIDDEN_TARGETS:
        raise LayerstoreError(f"invalid mount target {target!r}: nothing may be mounted below /{parts[0]}")
    return "/" + "/".join(parts)


def fill(
    init: Path, work: Path, lowers: Sequence[Path], places: Sequence[InitPath], *, userxattr: bool
) -> None:
    """Make `places` in the directory `init`, over the image in `lowers` (topmost first); the caller empties
    `work`.
    """
    from overlayfs_py.options import UnionOptions
    from overlayfs_py.union.overlay import Overlay

    options = UnionOptions(
        lower=tuple(os.fsencode(path) for path in lowers),
        upper=os.fsencode(init),
        work=os.fsencode(work),
        userxattr=userxattr,
    )
    with closing(Overlay.open(options)) as overlay:
        for place in places:
            _make(overlay, place)


def _make(overlay: "Overlay", place: InitPath) -> None:
    from overlayfs_py.union.overlay import Caller

    owner = Caller(os.geteuid(), os.getegid(), 0o022)
    *parents, last = os.fsencode(place.path.strip("/")).split(b"/")
    node = overlay.root
    for depth, name in enumerate(parents, start=1):
        below = overlay.lookup(node, name) or overlay.mkdir(node, name, 0o755, owner)[0]
        if not below.is_dir:
            if not place.needed:
                return
            raise _astray(place, parents[:depth], below)
        node = below
    old = overlay.lookup(node, last)
    if old is not None and not _gives_way(place, parents, last, old):
        return
    if old is not None:
        overlay.unlink(node, last)
    if place.kind == stat.S_IFDIR:
        overlay.mkdir(node, last, 0o755, owner)
    elif place.kind == stat.S_IFLNK:
        overlay.symlink(node, last, os.fsencode(place.link), owner)
    else:
        overlay.mknod(node, last, stat.S_IFREG | 0o755, 0, owner)


def _gives_way(place: InitPath, parents: Sequence[bytes], last: bytes, old: "Node") -> bool:
    """Whether to replace what the image has there; LayerstoreError where a mount would follow it or not
    fit.
    """
    if not place.needed:
        return place.replace and not old.is_dir
    if old.is_dir != (place.kind == stat.S_IFDIR) or stat.S_ISLNK(old.kind):
        raise _astray(place, [*parents, last], old)
    return False


def _astray(place: InitPath, parts: Sequence[bytes], found: "Node") -> LayerstoreError:
    path = "/" + os.fsdecode(b"/".join(parts))
    if stat.S_ISLNK(found.kind):
        why = "a symbolic link in the image; use the path that it points to"
    else:
        why = "a directory in the image" if found.is_dir else "not a directory in the image"
    return LayerstoreError(f"cannot use {place.path} as a mount target: {path} is {why}")
