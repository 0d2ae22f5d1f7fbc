"""nodeids and lookup counts."""

import errno
import stat

import pytest

from overlayfs_py.engine.nodes import ROOT_ID, NodeTable
from overlayfs_py.union.node import Node


def node(name: bytes = b"x") -> Node:
    return Node(stat.S_IFREG, None, name)


@pytest.fixture
def table() -> NodeTable:
    return NodeTable(Node(stat.S_IFDIR, None, b""))


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
