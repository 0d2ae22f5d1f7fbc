"""What a mount shows, read from its directories without one: by the union's reading, and by layerstore's."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerstore.layer.merged import Found, Merged, Part
from layerstore.layer.stack import Stack as LayerStack
from overlayfs_py.union.layer import Real
from overlayfs_py.union.marks import is_internal
from overlayfs_py.union.node import Node
from overlayfs_py.union.reading import Reading
from tests.mounts import Layers
from tests.snapshots import Dirent, Facts, Reader, Snapshot, Status, differences, status_of, take

# What a tree is without the numbers that only a mount gives.
COMPARED = ("type", "mode", "uid", "gid", "size", "rdev", "mtime", "target", "content", "xattrs")


class UnionReader:
    """`union.reading`, by paths."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def _node(self, path: bytes) -> Node:
        node = self._reading.find(path)
        if node is None:
            raise FileNotFoundError(2, "nothing", path)
        return node

    def scan(self, path: bytes) -> list[Dirent]:
        return [Dirent(name, 0, kind) for name, kind in self._reading.names(self._node(path))]

    def status(self, path: bytes) -> Status:
        return status_of(self._node(path).top.stat())

    def target(self, path: bytes) -> bytes:
        return self._node(path).top.readlink()

    def content(self, path: bytes) -> bytes:
        with os.fdopen(self._node(path).data.open(os.O_RDONLY), "rb") as stream:
            return stream.read()

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return _users(self._node(path).top)


def _users(real: Real) -> dict[bytes, bytes]:
    where, follow = real.proc_path()
    names = [name for name in os.listxattr(where, follow_symlinks=follow) if not is_internal(name)]
    return {os.fsencode(name): os.getxattr(where, name, follow_symlinks=follow) for name in names}


class LayerReader:
    """layerstore's, by paths."""

    def __init__(self, merged: Merged) -> None:
        self._merged = merged

    def _found(self, path: bytes) -> Found:
        root = self._merged.root
        if not path:
            return Found(root, self._merged.stat(root[0]))
        found = self._merged.resolve(root, path)
        if found is None:
            raise FileNotFoundError(2, "nothing", path)
        return found

    def scan(self, path: bytes) -> list[Dirent]:
        return [Dirent(name, 0, kind) for name, kind in self._merged.names(self._found(path).parts).items()]

    def status(self, path: bytes) -> Status:
        return status_of(self._found(path).st)

    def target(self, path: bytes) -> bytes:
        dir_fd, name = self._merged.at(self._found(path).parts[0])
        return os.readlink(name, dir_fd=dir_fd)

    def content(self, path: bytes) -> bytes:
        data = self._found(path).data
        assert data is not None
        return self._open(data)

    def _open(self, part: Part) -> bytes:
        dir_fd, name = self._merged.at(part)
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd), "rb") as stream:
            return stream.read()

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        part = self._found(path).parts[0]
        names = [name for name in self._merged.xattrs(part) if not is_internal(name)]
        return {os.fsencode(name): self._merged.xattr(part, name) for name in names}


def _paths(layers: Layers) -> tuple[bytes, list[bytes], bytes]:
    return os.fsencode(layers.upper), [os.fsencode(path) for path in layers.lowers], os.fsencode(layers.work)


@contextmanager
def by_union(layers: Layers, *, indexed: bool) -> Iterator[Reader]:
    upper, lowers, work = _paths(layers)
    with Reading(upper, lowers, work=work if indexed else None, aufs="auto") as reading:
        yield UnionReader(reading)


@contextmanager
def by_layerstore(layers: Layers, *, indexed: bool) -> Iterator[Reader]:
    upper, lowers, work = _paths(layers)
    with Merged(LayerStack(upper, tuple(lowers), work=work if indexed else None)) as merged:
        yield LayerReader(merged)


def compare(shown: Snapshot, layers: Layers, options: Mapping[str, str]) -> list[str]:
    """How what is read from the directories differs from what their mount has `shown`."""
    lines = []
    for name, way in (("the union reads", by_union), ("layerstore reads", by_layerstore)):
        with way(layers, indexed=options.get("index") == "on") as reader:
            read = take(reader)
        lines += differences(_facts(shown), _facts(read, shown), ("the mount shows", name))
    return lines


def _facts(snapshot: Snapshot, shown: Snapshot | None = None) -> dict[bytes, Facts]:
    """What can be compared; what the mount could not show (metacopy=off, say) is left out of both."""
    bad = {path for path, entry in (shown or snapshot).items() if entry.error}
    return {
        path: {name: _fact(name, path, entry.facts()) for name in COMPARED}
        for path, entry in snapshot.items()
        if not any(path == one or path.startswith(one + b"/") for one in bad)
    }


def _fact(name: str, path: bytes, facts: Facts) -> object:
    if name == "size" and facts["type"] in ("d", "b"):
        return None
    if name == "xattrs":
        found = facts["xattrs"]
        assert isinstance(found, dict)
        return {key: value for key, value in found.items() if b".overlay." not in key}
    return facts[name]
