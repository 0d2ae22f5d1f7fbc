"""Listings that the kernel keeps, and when they have to go."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.cookies import Cookies
from overlayfs_py.engine.native.listings import Listings
from overlayfs_py.union.overlay import Node
from tests.engine.native.bench import READ_WRITE, Bench, opened_bench

NAMES = [b"name%03d" % number for number in range(300)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(tmp_path) as made:
        for name in NAMES:
            (tmp_path / "lower/directory" / os.fsdecode(name)).touch()
        yield made


def page(
    bench: Bench, nodeid: int, cookie: int, size: int = 1024, name: str = "READDIR"
) -> list[tuple[int, bytes]]:
    """(cookie, name) of one answer."""
    raw = bench.ask(name, READ_WRITE.pack(0, cookie, size, 0, 0, 0), nodeid)
    assert len(raw) <= size
    skip = wire.ENTRY_OUT.size if name == "READDIRPLUS" else 0
    found, at = [], 0
    while at < len(raw):
        _, following, length, _ = wire.DIRENT.unpack_from(raw, at + skip)
        start = at + skip + wire.DIRENT.size
        found.append((following, raw[start : start + length]))
        at = (start + length + 7) & ~7
    return found


def rest(bench: Bench, nodeid: int, cookie: int = 0, name: str = "READDIR") -> list[bytes]:
    names = []
    while rows := page(bench, nodeid, cookie, name=name):
        names += [row[1] for row in rows]
        cookie = rows[-1][0]
    return names


def test_names_looked_up_one_by_one_ask_for_a_new_listing(bench: Bench) -> None:
    """The kernel drops a listing that came without attributes, once."""
    nodeid = bench.find(b"directory")
    dropped = struct.pack("=Qqq", nodeid, 0, 0)
    for name in NAMES[:50]:
        bench.find(name, nodeid)
    assert not bench.notified  # never listed: nothing to drop
    rest(bench, nodeid)
    for name in NAMES[50:]:
        bench.find(name, nodeid)
    bench.finish()
    assert [message[16:] for message in bench.notified] == [dropped]


def test_a_listing_with_wrong_numbers_goes_before_the_answer(bench: Bench) -> None:
    """One that nobody is putting together: the request that renumbered an entry is answered after that."""
    dropped: list[Node] = []
    kept = Listings(dropped.append)
    kept.misnumbered(bench.overlay.root)
    assert kept.stale == [bench.overlay.root]
    assert not dropped


def test_one_that_is_being_put_together_is_completed_first(bench: Bench) -> None:
    """The kernel begins no other before; it is dropped as soon as it is complete."""
    dropped: list[Node] = []
    kept = Listings(dropped.append)
    root = bench.overlay.root
    cookies = kept.cookies[root] = Cookies(kept.tags)
    kept.misnumbered(root)
    assert kept.stale == []
    kept.complete(root, cookies)
    assert dropped == [root]
    assert root not in kept.cookies


def test_a_forgotten_directory_has_no_listing(bench: Bench) -> None:
    kept = Listings(lambda node: None)
    root = bench.overlay.root
    kept.listed(root)
    kept.cookies[root] = Cookies(kept.tags)
    kept.forget(root)
    assert not kept.bare
    assert not kept.cookies
