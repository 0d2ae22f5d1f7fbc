"""Copy-ups off the event loop: one a node at a time, and the kernel is told what they changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from overlayfs_py.engine.copying import INLINE_SIZE
from overlayfs_py.engine.libfuse.copies import Copies
from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Node, Overlay


class Made:
    """An overlay with a short and a long file in its lower."""

    def __init__(self, top: Path, *, volatile: bool) -> None:
        for part in ("lower/d", "upper", "work"):
            (top / part).mkdir(parents=True)
        (top / "lower/d/short").write_bytes(b"short")
        (top / "lower/d/long").write_bytes(b"l" * (INLINE_SIZE + 1))
        lower, upper, work = (os.fsencode(top / part) for part in ("lower", "upper", "work"))
        options = UnionOptions(lower=(lower,), upper=upper, work=work, volatile=volatile)
        self.upper = top / "upper"
        self.overlay = Overlay.open(options)
        self.told: list[Node] = []
        self.copies = Copies(self.overlay, trio.CapacityLimiter(1), self.told.append)

    def find(self, name: bytes) -> Node:
        directory = self.overlay.lookup(self.overlay.root, b"d")
        assert directory is not None
        node = self.overlay.lookup(directory, name)
        assert node is not None
        return node


@pytest.fixture(params=[True, False], ids=["volatile", "durable"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path, volatile=request.param)
    yield found
    found.overlay.close()


@pytest.mark.parametrize("name", ["short", "long"])
async def test_the_contents_are_there_afterwards(made: Made, name: str) -> None:
    node = made.find(name.encode())
    await made.copies.ensure_upper(node, data=True)
    assert (made.upper / "d" / name).read_bytes()[:1] == name[:1].encode()
    assert made.told == [node, node.directory]
    await made.copies.ensure_upper(node, data=True)
    assert len(made.told) == 2
    assert len(made.copies) == 0


async def test_a_second_writer_waits_for_the_first_ones_copy(made: Made) -> None:
    """It does not copy again."""
    node = made.find(b"long")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: made.copies.ensure_upper(node, data=True))
    assert made.overlay.copied_up[0] == 2  # the directory and the file
    assert made.told == [node, node.directory]


async def test_an_error_reaches_the_caller_and_leaves_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **hints: bool) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("overlayfs_py.union.copyup.copy_data", full)
    with pytest.raises(OSError, match="No space"):
        await made.copies.ensure_upper(made.find(b"long"), data=True)
    assert len(made.copies) == 0
    assert not (made.upper / "d/long").exists()


async def test_who_holds_a_node_keeps_copies_waiting(made: Made) -> None:
    node = made.find(b"short")
    async with trio.open_nursery() as nursery:
        async with made.copies.held(node):
            nursery.start_soon(lambda: made.copies.ensure_upper(node, data=True))
            await trio.testing.wait_all_tasks_blocked()
            assert not (made.upper / "d/short").exists()
    assert (made.upper / "d/short").exists()


def test_what_is_copied_up_by_the_way_is_told(made: Made) -> None:
    """A name made in a lower directory copies that up; the kernel's own request does not say so."""
    directory = made.find(b"short").directory
    with made.copies.reporting(directory):
        made.overlay.unlink(directory, b"short")
    assert made.told == [directory]
