"""What a mount shows, read from its directories without one."""

import os
from collections.abc import Mapping

from overlayfs_py.union.layer import Real
from overlayfs_py.union.marks import is_internal
from overlayfs_py.union.node import Node
from overlayfs_py.union.reading import Reading
from tests.mounts import Layers
from tests.oracle import crowd
from tests.snapshots import Dirent, Facts, Snapshot, Status, differences, status_of, take

# What a tree is without the numbers that only a mount gives.
COMPARED = ("type", "mode", "uid", "gid", "size", "rdev", "mtime", "target", "content", "xattrs")


class UnionReader:
    """`union.reading`, by paths; without the crowd, as the mounts' readers (`crowd.WithoutCrowd`)."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def _node(self, path: bytes) -> Node:
        node = self._reading.find(path)
        if node is None:
            raise FileNotFoundError(2, "nothing", path)
        return node

    def scan(self, path: bytes) -> list[Dirent]:
        found = self._reading.names(self._node(path))
        return [Dirent(name, 0, kind) for name, kind in found if path or name != crowd.NAME]

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


def compare(shown: Snapshot, layers: Layers, options: Mapping[str, str]) -> list[str]:
    """How what is read from the directories differs from what their mount has `shown`."""
    work = os.fsencode(layers.work) if options.get("index") == "on" else None
    lowers = [os.fsencode(path) for path in layers.lowers]
    with Reading(os.fsencode(layers.upper), lowers, work=work, aufs="auto") as reading:
        read = take(UnionReader(reading))
    return differences(_facts(shown), _facts(read, shown), ("the mount shows", "read without it"))


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
