"""Listing without opens: every READDIR stands alone, whatever happened since the one before it."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import wire
from tests.engine.native.bench import READ_WRITE, Bench
from tests.engine.native.paging import NAMES, bench_of_names, page, rest


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_of_names(tmp_path) as made:
        yield made


@pytest.mark.parametrize("name", ["READDIR", "READDIRPLUS"])
def test_all_names_once(bench: Bench, name: str) -> None:
    names = rest(bench, bench.find(b"directory"), name=name)
    assert names[:2] == [b".", b".."]
    assert sorted(names[2:]) == NAMES


def test_readers_do_not_disturb_each_other(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    first = page(bench, nodeid, 0)
    assert len(rest(bench, nodeid)) == len(NAMES) + 2
    names = [row[1] for row in first] + rest(bench, nodeid, first[-1][0])
    assert sorted(names[2:]) == NAMES


def test_removing_while_listing(bench: Bench) -> None:
    """As rm -rf does: what is removed behind the reader hides nothing before it."""
    nodeid = bench.find(b"directory")
    cookie, seen = 0, []
    while rows := page(bench, nodeid, cookie):
        cookie = rows[-1][0]
        for _, name in rows:
            if not name.startswith(b"."):
                seen.append(name)
                bench.ask("UNLINK", name + b"\0", nodeid)
        page(bench, nodeid, 0)  # somebody else begins anew
    assert sorted(seen) == NAMES
    assert [name for _, name in page(bench, nodeid, 0)] == [b".", b".."]


def test_adding_while_listing(bench: Bench) -> None:
    """Names there all the time come exactly once; new ones once or not at all."""
    nodeid = bench.find(b"directory")
    chance = random.Random(1)
    cookie, seen = 0, []
    while rows := page(bench, nodeid, cookie):
        seen += [row[1] for row in rows]
        cookie = rows[-1][0]
        name = b"new%d\0" % chance.randrange(10**9)
        bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + name, nodeid)
        page(bench, nodeid, 0)
    assert len(seen) == len(set(seen))
    assert set(NAMES) <= set(seen)


def test_plus_counts_lookups(bench: Bench) -> None:
    """Each name listed with its entry was handed out once, the dots were not."""
    nodeid = bench.find(b"directory")
    rest(bench, nodeid, name="READDIRPLUS")
    assert len(bench.state.nodes) == len(NAMES) + 2
    for name in NAMES:
        child = bench.find(name, nodeid)
        bench.forget(child, 2)
    assert len(bench.state.nodes) == 2


@pytest.mark.parametrize("name", ["READDIR", "READDIRPLUS"])
def test_numbers_are_stats(bench: Bench, name: str) -> None:
    nodeid = bench.find(b"directory")
    directory = bench.state.node(nodeid)
    seen, cookie = 0, 0
    while raw := bench.ask(name, READ_WRITE.pack(0, cookie, 4096, 0, 0, 0), nodeid):
        at = wire.ENTRY_OUT.size if name == "READDIRPLUS" else 0
        while at < len(raw):
            ino, cookie, length, kind = wire.DIRENT.unpack_from(raw, at)
            start = at + wire.DIRENT.size
            child = raw[start : start + length]
            above = {b".": directory, b"..": bench.overlay.root}
            node = above.get(child) or bench.overlay.lookup(directory, child)
            assert node is not None
            assert (ino, kind << 12) == (node.ino, node.kind)
            seen += 1
            at = start + length + 7 & ~7
            at += wire.ENTRY_OUT.size if name == "READDIRPLUS" else 0
    assert seen == len(NAMES) + 2


def test_a_reader_who_goes_on_is_told_what_is_there_now(bench: Bench) -> None:
    """The kernel takes its answer into a listing that somebody else began after the change."""
    nodeid = bench.find(b"directory")
    first = page(bench, nodeid, 0)
    ahead = [name for name in rest(bench, nodeid) if name not in {row[1] for row in first}]
    bench.ask("UNLINK", ahead[0] + b"\0", nodeid)
    made = [b"new%d" % n for n in range(40)]
    for name in made:
        bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + name + b"\0", nodeid)
    all_names = rest(bench, nodeid)
    assert set(all_names) == {b".", b"..", *NAMES, *made} - {ahead[0]}
    cookie, last = first[-1]
    assert rest(bench, nodeid, cookie) == all_names[all_names.index(last) + 1 :]
