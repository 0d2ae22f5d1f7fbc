"""Listings that the kernel keeps, and when they have to go."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native.cookies import Cookies
from overlayfs_py.engine.native.listings import Listings
from overlayfs_py.union.overlay import Node
from tests.engine.native.bench import Bench
from tests.engine.native.paging import NAMES, bench_of_names, rest


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_of_names(tmp_path) as made:
        yield made


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
