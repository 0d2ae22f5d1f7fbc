"""The init layer: places that a running system mounts over, kept out of every commit by being a lower.

It lies between the image and the upper, so what is in it and untouched never shows up as a change. It holds
docker's own set (with ``--init``) and the mount targets of ``-v``. It is made through the overlay itself,
without a mount: the parents it needs are copied up from the image with all their attributes.
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
    """A path the init layer provides: a directory, an empty file or a symbolic link."""

    path: str
    kind: int
    link: str = ""
    replace: bool = False  # an image's own file gives way
    needed: bool = False  # otherwise a place that an image makes impossible is passed over


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
    """The mount targets: a directory for a directory, an empty file for anything else."""
    for bind in binds:
        yield InitPath(bind.target, stat.S_IFDIR if os.path.isdir(bind.source) else stat.S_IFREG, needed=True)


def check_target(target: str) -> str:
    """A mount target in its plain form; refuses those where an image could lead a mount astray."""
    parts = [part for part in target.split("/") if part not in {"", "."}]
    if not target.startswith("/") or ".." in parts or not parts:
        raise LayerstoreError(f"invalid mount target {target!r}: an absolute path below / is needed")
    if parts[0] in _FORBIDDEN_TARGETS:
        raise LayerstoreError(f"invalid mount target {target!r}: nothing may be mounted below /{parts[0]}")
    return "/" + "/".join(parts)


def fill(
    init: Path, work: Path, lowers: Sequence[Path], places: Sequence[InitPath], *, userxattr: bool
) -> None:
    """Make `places` in the directory `init`, over the image in `lowers` (topmost first); `work` is emptied
    by others.
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
    """Whether what the image has there is to be replaced; refuses what a mount would follow or not fit on."""
    if not place.needed:
        return place.replace and not old.is_dir
    if old.is_dir != (place.kind == stat.S_IFDIR) or stat.S_ISLNK(old.kind):
        raise _astray(place, [*parents, last], old)
    return False


def _astray(place: InitPath, parts: Sequence[bytes], found: "Node") -> LayerstoreError:
    path = "/" + os.fsdecode(b"/".join(parts))
    if stat.S_ISLNK(found.kind):
        why = "a symbolic link in the image; name the place it leads to instead"
    else:
        why = "a directory in the image" if found.is_dir else "not a directory in the image"
    return LayerstoreError(f"cannot use {place.path} as a mount target: {path} is {why}")
