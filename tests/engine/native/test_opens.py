"""Opens that the kernel asks for (data=passthrough): each is counted, and given back once."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import wire
from tests.engine.native.bench import Bench, fails, opened_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(tmp_path, opens=True) as made:
        yield made


def _open(bench: Bench, nodeid: int, flags: int, uid: int = 0) -> int:
    fh, _, _ = wire.OPEN_OUT.unpack(bench.ask("OPEN", struct.pack("=II", flags, 0), nodeid, uid))
    return int(fh)


def _release(bench: Bench, nodeid: int, fh: int) -> None:
    bench.ask("RELEASE", struct.pack("=QIIQ", fh, 0, 0, 0), nodeid)


def test_each_open_has_a_number_of_its_own(bench: Bench) -> None:
    nodeid = bench.find(b"file")
    handles = [_open(bench, nodeid, os.O_RDONLY) for _ in range(3)]
    assert len(set(handles)) == 3
    assert len(bench.dispatcher.opens) == 3
    for fh in handles:
        _release(bench, nodeid, fh)
    assert len(bench.dispatcher.opens) == 0
    _release(bench, nodeid, handles[0])  # a kernel that says it twice does no harm


def test_an_open_for_writing_copies_up(bench: Bench) -> None:
    """At the open, as in the kernel's overlayfs; one for reading leaves the upper alone."""
    nodeid = bench.find(b"file")
    _open(bench, nodeid, os.O_RDONLY)
    assert not (bench.top / "upper/file").exists()
    _open(bench, nodeid, os.O_WRONLY)
    assert (bench.top / "upper/file").read_bytes() == b"lower"


def test_truncation_copies_no_contents(bench: Bench) -> None:
    big = bench.find(b"big")
    _open(bench, big, os.O_WRONLY | os.O_TRUNC)
    assert (bench.top / "upper/big").stat().st_size == 0


def test_direct_opens_need_no_alignment(bench: Bench) -> None:
    """The kernel does O_DIRECT itself; the layer's descriptor is opened without."""
    nodeid = bench.find(b"file")
    _open(bench, nodeid, os.O_RDONLY | os.O_DIRECT)
    assert bench.read(nodeid, 3) == b"low"


def test_an_answer_that_is_not_taken_leaves_no_open(bench: Bench) -> None:
    """Its sender was killed: no RELEASE will come."""
    bench.waited_for = False
    nodeid = bench.find(b"file")
    bench.put("OPEN", struct.pack("=II", os.O_RDONLY, 0), nodeid)
    assert len(bench.dispatcher.opens) == 0


def test_what_is_refused_is_not_open(bench: Bench) -> None:
    with fails(21):
        _open(bench, 1, os.O_WRONLY)
    assert len(bench.dispatcher.opens) == 0
