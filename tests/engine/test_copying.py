"""What both engines know of a copy-up: which attributes it changed that the kernel keeps."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.copying import CopyUpEffects
from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Node, Overlay


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    for part in ("lower/a/b", "upper", "work"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "lower/a/b/f").write_bytes(b"f")
    os.link(tmp_path / "lower/a/b/f", tmp_path / "lower/a/b/g")
    lower, upper, work = (os.fsencode(tmp_path / part) for part in ("lower", "upper", "work"))
    made = Overlay.open(UnionOptions(lower=(lower,), upper=upper, work=work))
    yield made
    made.close()


def _find(overlay: Overlay, path: bytes) -> Node:
    node = overlay.root
    for name in path.split(b"/"):
        found = overlay.lookup(node, name)
        assert found is not None
        node = found
    return node


def _copy_up(overlay: Overlay, node: Node) -> None:
    job = overlay.copy_up(node)
    assert job is not None
    job.transfer()
    job.commit()


def test_the_directories_above_are_copied_up_too(overlay: Overlay) -> None:
    """Their link counts and sizes differ afterwards, so all of them are named (not the root)."""
    node = _find(overlay, b"a/b/f")
    before = CopyUpEffects(overlay, node)
    assert before.copied_up() == []
    _copy_up(overlay, node)
    assert before.copied_up() == [node, node.directory, node.directory.directory]


def test_a_broken_hard_link_has_another_number(overlay: Overlay) -> None:
    """index=off: the copy is an inode of its own, and listings that the kernel keeps say the old number."""
    node = _find(overlay, b"a/b/g")
    before = CopyUpEffects(overlay, node)
    assert not before.renumbered
    _copy_up(overlay, node)
    assert before.renumbered


def test_nothing_happens_to_what_has_an_upper_part(overlay: Overlay) -> None:
    node = _find(overlay, b"a/b/f")
    _copy_up(overlay, node)
    before = CopyUpEffects(overlay, node)
    assert before.lower == before.copied_up() == []
