"""A directory of many names, and its listing read in pages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overlayfs_py.engine.native import wire
from tests.engine.native.bench import READ_WRITE, Bench, opened_bench

NAMES = [b"name%03d" % number for number in range(300)]


@contextmanager
def bench_of_names(top: Path) -> Iterator[Bench]:
    """An opened bench whose lower `directory` has all NAMES."""
    with opened_bench(top) as made:
        for name in NAMES:
            (top / "lower/directory" / os.fsdecode(name)).touch()
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
