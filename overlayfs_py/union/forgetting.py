"""Dropping nodes that nothing refers to any more, and with them the directories above that only they kept."""

from collections.abc import Iterator

from overlayfs_py.union import stash
from overlayfs_py.union.links import unregister
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack

# Names. To free the index of a directory that has more takes long.
_MANY = 4096


def forget(stack: Stack, node: Node) -> int:
    """Nothing outside refers to `node` any more: drop it, its index and its descriptors. Returns how many
    names there were in the indexes that went; large ones are left in `stack.debris`.
    """
    node.known = False
    names = 0
    pending = [node]
    while pending:
        node = pending.pop()
        if not (node.is_root or node.known or node.children or node.opens):
            pending += [parent for parent, _ in node.names()]
            index = node.index
            _drop(stack, node)
            if index is not None:
                names += len(index.entries)
                if len(index.entries) > _MANY:
                    stack.debris.append(index.entries)
    return names


def clear_debris(stack: Stack) -> Iterator[None]:
    """Free `stack.debris`, in short steps."""
    debris, stack.debris = stack.debris, []
    for entries in debris:
        while entries:
            for _ in range(min(len(entries), _MANY)):
                entries.popitem()
            yield


def _drop(stack: Stack, node: Node) -> None:
    unregister(stack, node)
    stack.stripped.discard(node)
    stack.protected.pop(node, None)
    stack.data_fds.close(node)
    for parent, name in node.names():
        if parent.children is not None and parent.children.get(name) is node:
            del parent.children[name]
            if not parent.children:
                parent.children = None  # an empty dict keeps the room it once had
    if node.is_dir:
        node.index = None
    stash.let_go(stack, node)
    for real in node.lowers:
        real.drop()
