"""Nodes: which names a node goes by, and which of them operations use."""

import stat

import pytest

from overlayfs_py.union.node import Directory, Node


@pytest.fixture
def root() -> Directory:
    return Directory(None, b"")


def _file(parent: Node, name: bytes) -> Node:
    node = Node(stat.S_IFREG, parent, name)
    node.attach(parent, name)
    return node


def _names(node: Node) -> set[bytes]:
    return {name for _, name in node.names()}


def test_a_node_is_known_under_each_of_its_names(root: Directory) -> None:
    """The first is its own, the others are aliases; attaching one twice changes nothing."""
    node = _file(root, b"a")
    for name in (b"b", b"b", b"a"):
        node.attach(root, name)
    assert node.known
    assert node.name == b"a"
    assert _names(node) == {b"a", b"b"}
    assert root.children == {b"a": node, b"b": node}


def test_another_name_follows_when_the_own_one_goes(root: Directory) -> None:
    node = _file(root, b"a")
    node.attach(root, b"b")
    node.detach(root, b"a")
    assert (node.parent, node.name) == (root, b"b")
    node.detach(root, b"b")
    assert node.unlinked
    assert not _names(node)


def test_detaching_leaves_a_name_to_its_new_node(root: Directory) -> None:
    """A name made again belongs to the node that has it now."""
    old = _file(root, b"a")
    new = _file(root, b"a")
    old.detach(root, b"a")
    assert root.children == {b"a": new}


def test_the_preferred_name_is_the_one_that_operations_use(root: Directory) -> None:
    node = _file(root, b"a")
    node.attach(root, b"b")
    node.prefer(root, b"b")
    assert node.name == b"b"
    assert _names(node) == {b"a", b"b"}


def test_a_node_nobody_knows_keeps_no_other_name(root: Directory) -> None:
    node = Node(stat.S_IFREG, root, b"a")
    node.prefer(root, b"b")
    assert _names(node) == {b"b"}


def test_the_root_is_never_unlinked(root: Directory) -> None:
    """It has no directory above it either, but the empty name."""
    assert root.is_root
    assert not root.unlinked
    assert root.is_dir


@pytest.mark.parametrize(
    ("kind", "predicates"),
    [(stat.S_IFREG, (True, False)), (stat.S_IFLNK, (False, True)), (stat.S_IFIFO, (False, False))],
)
def test_kinds(root: Directory, kind: int, predicates: tuple[bool, bool]) -> None:
    node = Node(kind, root, b"n")
    assert (node.is_file, node.is_symlink) == predicates
    assert not node.is_dir
