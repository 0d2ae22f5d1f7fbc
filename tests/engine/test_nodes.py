"""nodeids and lookup counts."""

import errno
import stat

import pytest

from overlayfs_py.engine.nodes import ROOT_ID, NodeTable
from overlayfs_py.union.node import Directory, Node


def node(name: bytes = b"x") -> Node:
    return Node(stat.S_IFREG, None, name)


@pytest.fixture
def table() -> NodeTable:
    return NodeTable(Directory(None, b""))


def test_root_is_never_forgotten(table: NodeTable) -> None:
    assert table.forget(ROOT_ID, 5) is None
    assert table.inode(ROOT_ID).node.is_dir


def test_nodeid_is_the_inode_number_while_free(table: NodeTable) -> None:
    first, second = node(), node()
    assert table.remember(first, 77).nodeid == 77
    other = table.remember(second, 77)
    assert other.nodeid != 77
    assert not other.is_plain(77)
    assert table.inode(other.nodeid).node is second


@pytest.mark.parametrize("ino", [0, ROOT_ID])
def test_reserved_numbers_are_not_used(table: NodeTable, ino: int) -> None:
    assert table.remember(node(), ino).nodeid not in (0, ROOT_ID)


def test_forgotten_when_all_lookups_are_taken_back(table: NodeTable) -> None:
    one = node()
    for _ in range(3):
        inode = table.remember(one, 9)
    assert table.forget(inode.nodeid, 2) is None
    assert table.forget(inode.nodeid, 1) is one
    assert table.known(one) is None
    with pytest.raises(OSError, match="Stale") as caught:
        table.inode(9)
    assert caught.value.errno == errno.ESTALE


def test_a_number_is_free_again_after_forget(table: NodeTable) -> None:
    table.remember(node(), 9)
    table.forget(9, 1)
    assert table.remember(node(), 9).nodeid == 9


def test_who_has_a_number_again_has_another_generation(table: NodeTable) -> None:
    """So that a file handle does not open somebody else's file."""
    first = table.remember(Node(stat.S_IFREG, None, b"first"), 9)
    assert table.remember(first.node, 9).generation == first.generation
    table.forget(9, 2)
    second = table.remember(Node(stat.S_IFREG, None, b"second"), 9)
    assert second.nodeid == first.nodeid
    assert second.generation != first.generation


def test_made_up_numbers_avoid_real_ones(table: NodeTable) -> None:
    made_up = table.remember(node(), 0).nodeid
    table.remember(node(), made_up + 1)
    assert len({made_up, made_up + 1, table.remember(node(), 0).nodeid}) == 3


def test_clear_returns_what_was_known(table: NodeTable) -> None:
    nodes = {node(), node()}
    for number, one in enumerate(nodes, 5):
        table.remember(one, number)
    assert set(table.clear()) == nodes
    assert len(table) == 1


def test_lent_number_of_another_inode(table: NodeTable) -> None:
    """Two names, one st_ino, two nodes: the second name is listed with the first one's inode."""
    first, second = node(), node()
    owner = table.remember(first, 9)
    table.remember(second, 9)
    assert table.lend(second, 9) is owner
    assert owner.lookups == 2
    assert table.forget(9, 2) is first


def test_lent_second_number(table: NodeTable) -> None:
    """A node whose st_ino changed after it was handed out keeps its nodeid; a listing shows the new one."""
    one = node()
    main = table.remember(one, 9)
    lent = table.lend(one, 10)
    assert lent is not None
    assert table.inode(10) is lent
    assert table.known(one) is main
    assert table.forget(9, 1) is None  # still known by its second number
    assert table.forget(10, 1) is one
    assert len(table) == 1


def test_nothing_is_lent_across_kinds(table: NodeTable) -> None:
    table.remember(Node(stat.S_IFLNK, None, b"link"), 9)
    file = node()
    table.remember(file, 9)
    assert table.lend(file, 9) is None


def test_memory_of_many_is_given_back() -> None:
    """Told once most of them are gone, and not again for a few."""
    shrunk = []
    nodes = NodeTable(Directory(None, b""), lambda: shrunk.append(len(nodes)))
    for number in range(2, 8002):
        nodes.remember(node(), number)
    for number in range(2, 8002):
        nodes.forget(number, 1)
    assert len(shrunk) == 1
    assert shrunk[0] < 8000 // 4
    assert len(nodes) == 1
