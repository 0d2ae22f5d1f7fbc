"""Forgetting nodes: the directories above go with the last one below, and no descriptor stays."""

import os

import pytest

from overlayfs_py.union import forgetting
from overlayfs_py.union.node import Node
from overlayfs_py.union.overlay import Overlay
from tests.trees import File
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]


def _looked_up(union: Union, *path: bytes) -> Node:
    node = union.overlay.root
    for name in path:
        found = union.overlay.lookup(node, name)
        assert found is not None
        node = found
    return node


def _known(overlay: Overlay, *path: bytes) -> bool:
    node: Node | None = overlay.root
    for name in path:
        node = None if node is None else overlay.known_child(node, name)
    return node is not None


def test_a_directory_is_kept_by_what_is_known_below_it(open_union: Opener) -> None:
    """Forgotten itself, it goes when the last node below it does."""
    union = open_union({"a/b/f": File(b"f")})
    overlay = union.overlay
    leaf = _looked_up(union, b"a", b"b", b"f")
    for directory in (leaf.directory, leaf.directory.directory):
        overlay.forget(directory)
    assert _known(overlay, b"a", b"b", b"f")
    overlay.forget(leaf)
    assert not _known(overlay, b"a")
    assert union.content(b"a/b/f") == b"f"


def test_an_open_file_outlasts_forgetting(open_union: Opener) -> None:
    union = open_union({"f": File(b"f")})
    fd = union.open(b"f", os.O_RDONLY, 0)
    union.overlay.forget(_looked_up(union, b"f"))
    assert union.pread(fd, 10, 0) == b"f"
    union.close(fd)
    assert not _known(union.overlay, b"f")


def test_the_root_is_never_forgotten(open_union: Opener) -> None:
    union = open_union({"f": File()})
    union.overlay.forget(union.overlay.root)
    assert union.names() == [b"f"]


def test_it_says_how_many_names_the_indexes_held(open_union: Opener) -> None:
    """So that an engine knows when memory is worth giving back."""
    union = open_union({f"d/{number}": File() for number in range(50)})
    directory = _looked_up(union, b"d")
    union.overlay.list_dir(directory)
    assert union.overlay.forget(directory) == 50
    assert union.overlay.forget(_looked_up(union, b"d")) == 0


def test_a_huge_index_is_freed_in_steps(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_MANY", 10)
    union = open_union({f"d/{number}": File() for number in range(35)})
    directory = _looked_up(union, b"d")
    union.overlay.list_dir(directory)
    assert union.overlay.forget(directory) == 35
    assert union.overlay.has_debris
    assert sum(1 for _ in union.overlay.clear_debris()) == 4
    assert not union.overlay.has_debris


def test_all_names_of_a_hard_link_go(open_union: Opener) -> None:
    """Known under three names, it is forgotten once."""
    union = open_union({"d/f": File(b"f")}, index="on")
    for name in (b"g", b"d/h"):
        union.link(b"d/f", name)
    node = _looked_up(union, b"g")
    assert _looked_up(union, b"d", b"h") is _looked_up(union, b"d", b"f") is node
    union.overlay.forget(_looked_up(union, b"d"))
    union.overlay.forget(node)
    assert not _known(union.overlay, b"g")
    assert not _known(union.overlay, b"d")
