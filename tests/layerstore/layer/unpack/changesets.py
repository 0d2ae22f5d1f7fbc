"""What a layer makes of the tree below it, as umoci does it, one member after the other: an oracle in memory.

Whiteouts remove what the same layer has not put there, nor holds anything of; everything else replaces what
it finds. Paths are followed through symlinks, as in a chroot.
"""

import os
import posixpath
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tests.layerstore.layer import tars

Facts = dict[str, tuple[str, int, int, bytes, list[str]]]


class Refused(Exception):
    """Such a layer is an error."""


@dataclass(frozen=True)
class Node:
    """`kind` is ``d``, ``f`` or ``l``; `content` bytes or a link's target; `inode` tells hard links."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    content: bytes = b""
    inode: int = 0


@dataclass(frozen=True)
class Op:
    """``d``, ``f``, ``l`` put such a node at `path`; ``h`` a hard link to `target`; ``w`` hides `path` and
    ``o`` all that is in it.
    """

    kind: str
    path: str
    mode: int = 0o644
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}" + (f">{self.target}" if self.target else "")


@dataclass
class Changed:
    """A tree that a layer is being applied to."""

    tree: dict[str, Node]
    own: set[str] = field(default_factory=set)

    def apply(self, op: Op) -> None:
        parent, name = posixpath.split(op.path)
        if op.kind in "wo":
            self._hide(op, parent, name)
            return
        parent = self._directory(parent)
        path = posixpath.join(parent, name)
        self._put(path, self._node(op))
        while path:
            self.own.add(path)
            path = posixpath.dirname(path)

    def _node(self, op: Op) -> Node:
        if op.kind == "h":
            found = self._resolve(posixpath.dirname(op.target))
            target = (
                None if found is None else self.tree.get(posixpath.join(found, posixpath.basename(op.target)))
            )
            if target is None or target.kind == "d":
                raise Refused
            return target
        inode = 1 + max((node.inode for node in self.tree.values()), default=0)
        content = op.target.encode() or (b"new " + op.path.encode())
        mode = 0o777 if op.kind == "l" else op.mode
        return Node(op.kind, mode, 1, b"" if op.kind == "d" else content, inode)

    def _put(self, path: str, node: Node) -> None:
        old = self.tree.get(path)
        if old is not None and (old.kind, node.kind) != ("d", "d"):
            self._remove(path)
        self.tree[path] = node

    def _remove(self, path: str) -> None:
        for below in [p for p in self.tree if p == path or p.startswith(path + "/")]:
            del self.tree[below]

    def _hide(self, op: Op, parent: str, name: str) -> None:
        found = self._resolve(posixpath.join(parent, name) if op.kind == "o" else parent)
        if found is None:
            return
        path = found if op.kind == "o" else posixpath.join(found, name)
        for below in sorted(self.tree):
            inside = below.startswith(path + "/") if path else True
            if (inside or (op.kind == "w" and below == path)) and below not in self.own:
                self._remove(below)

    def _resolve(self, path: str) -> str | None:
        """The directory at `path` without symlinks on the way; None when there is none."""
        here = ""
        for step in filter(None, path.split("/")):
            node = self.tree.get(posixpath.join(here, step))
            if node is not None and node.kind == "l":
                found = self._resolve(posixpath.join(here, node.content.decode()))
                if found is None:
                    return None
                here = found
            elif node is None or node.kind != "d":
                return None
            else:
                here = posixpath.join(here, step)
        return here

    def _directory(self, path: str) -> str:
        """The same; what is missing is made."""
        here = ""
        for step in filter(None, path.split("/")):
            node = self.tree.get(posixpath.join(here, step))
            if node is not None and node.kind == "l":
                here = self._directory(posixpath.join(here, node.content.decode()))
                continue
            here = posixpath.join(here, step)
            if node is None:
                self.tree[here] = Node("d", 0o755)
            elif node.kind != "d":
                raise Refused
        return here


def applied(tree: dict[str, Node], ops: tuple[Op, ...]) -> dict[str, Node]:
    """The tree with a layer on it; Refused for what cannot be."""
    changed = Changed(dict(tree))
    for op in ops:
        changed.apply(op)
    return changed.tree


def tar_of(prefix: str, tree: dict[str, Node]) -> bytes:
    """The members that make such a tree in the directory `prefix`, which they make too."""
    out = [tars.directory(f"{prefix}/".encode())]
    for path, node in sorted(tree.items()):
        name = f"{prefix}/{path}".encode()
        kind = {"d": b"5", "f": b"0", "l": b"2"}[node.kind]
        link = node.content if node.kind == "l" else b""
        data = node.content if node.kind == "f" else b""
        out.append(tars.member(name, data, kind=kind, link=link, mode=node.mode, uid=node.uid, mtime=100))
    return b"".join(out)


def member_of(prefix: str, op: Op) -> bytes:
    """The member that says so in a layer."""
    name = f"{prefix}/{op.path}".encode()
    parent, _, last = name.rpartition(b"/")
    if op.kind == "w":
        return tars.member(parent + b"/.wh." + last)
    if op.kind == "o":
        return tars.member(name + b"/.wh..wh..opq")
    if op.kind == "h":
        return tars.hard_link(name, f"{prefix}/{op.target}".encode())
    if op.kind == "l":
        return tars.member(name, kind=b"2", link=op.target.encode(), mode=0o777, uid=1)
    if op.kind == "d":
        return tars.directory(name + b"/", op.mode, uid=1)
    return tars.member(name, b"new " + op.path.encode(), mode=op.mode, uid=1)


def facts(tree: dict[str, Node]) -> Facts:
    """What two trees are compared by: kind, mode, owner, content, and which names are one file."""
    names: dict[int, list[str]] = {}
    for path, node in sorted(tree.items()):
        names.setdefault(node.inode, []).append(path)
    return {
        path: (node.kind, node.mode, node.uid, node.content, names[node.inode] if node.kind == "f" else [])
        for path, node in tree.items()
    }


def read(root: Path) -> dict[str, dict[str, Node]]:
    """The trees in the directories of `root`."""
    return {top.name: _read_one(top) for top in root.iterdir()}


def _read_one(top: Path) -> dict[str, Node]:
    tree = {}
    for path in top.rglob("*"):
        st = path.lstat()
        kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(st.st_mode), "f")
        content = os.fsencode(path.readlink()) if kind == "l" else path.read_bytes() if kind == "f" else b""
        name = os.fspath(path.relative_to(top))
        tree[name] = Node(kind, stat.S_IMODE(st.st_mode), st.st_uid, content, st.st_ino)
    return tree
