"""What a request must wait for: the names of a huge directory, found while others are answered in between."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import forgetting
from overlayfs_py.union import building, listing, workdir
from tests.engine.native.bench import READ_WRITE, Bench, fails, opened_bench
from tests.engine.native.paging import rest

NAMES = [b"name%d" % number for number in range(700)]
_MKNOD = struct.pack("=IIII", 0o100644, 0, 0, 0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Over a directory that counts as huge: half of it in the upper, some removed there."""
    monkeypatch.setattr(listing, "_AT_ONCE", 1)
    monkeypatch.setattr(listing, "_MANY", 100)
    monkeypatch.setattr(building, "_STEP", 50)
    monkeypatch.setattr("overlayfs_py.syscalls.dirents._SMALL_BUFFER_SIZE", 2048)
    with opened_bench(tmp_path) as made:
        (tmp_path / "upper/directory").mkdir()
        for number, name in enumerate(NAMES):
            for part in ("lower", "upper")[number % 3 == 0 : 1 + (number % 3 < 2)]:
                (tmp_path / part / "directory" / os.fsdecode(name)).touch()
        (tmp_path / "upper/directory/name1").unlink()
        os.mknod(tmp_path / "upper/directory/name1", 0o020000, 0)
        yield made


def is_listed(bench: Bench, nodeid: int) -> bool:
    index = bench.state.node(nodeid).index
    return index is not None and index.rest is None


def put_read_dir(bench: Bench, nodeid: int) -> int:
    return bench.put("READDIR", READ_WRITE.pack(0, 0, 4096, 0, 0, 0), nodeid)


def test_looking_up_lists_only_a_little(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    assert bench.find(b"name0", nodeid)
    assert not is_listed(bench, nodeid)
    for name in (b"name1", b"missing"):
        assert struct.unpack_from("=Q", bench.ask("LOOKUP", name + b"\0", nodeid))[0] == 0
    for name in NAMES:
        assert bench.ask("LOOKUP", name + b"\0", nodeid)
    assert is_listed(bench, nodeid)
    assert bench.find(b"name3", nodeid)


def test_others_are_answered_while_it_is_listed(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    unique = put_read_dir(bench, nodeid)
    slices = 0
    while unique not in bench.sent:
        assert bench.find(b"file")
        assert bench.find(b"name5", nodeid)
        bench.state.chores.slice()
        slices += 1
    assert slices > 0
    assert sorted(rest(bench, nodeid)[2:]) == sorted(set(NAMES) - {b"name1"})


def test_several_wait_for_one_listing(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    uniques = [put_read_dir(bench, nodeid) for _ in range(3)]
    uniques.append(bench.put("MKNOD", _MKNOD + b"new\0", nodeid))
    uniques.append(bench.put("UNLINK", b"name2\0", nodeid))
    uniques.append(bench.put("RMDIR", b"directory\0"))
    assert not set(uniques) & set(bench.sent)
    while bench.state.chores.pending:
        bench.state.chores.slice()
    assert [bench.sent[unique][0] for unique in uniques] == [0, 0, 0, 0, 0, 39]
    assert set(rest(bench, nodeid)[2:]) == {*NAMES, b"new"} - {b"name1", b"name2"}


def test_giving_up_the_wait(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    unique = put_read_dir(bench, nodeid)
    bench.put("INTERRUPT", struct.pack("=Q", unique))
    assert bench.sent[unique][0] == 4
    assert len(rest(bench, nodeid)) == len(NAMES) + 1


def test_a_copy_up_waits_for_the_names(bench: Bench) -> None:
    """Of the directory in which it makes one."""
    (bench.top / "lower/directory/lower").write_bytes(b"lower")
    nodeid = bench.find(b"directory")
    child = bench.find(b"lower", nodeid)
    unique = bench.write(child, b"LO")
    assert unique not in bench.sent
    while bench.state.chores.pending:
        bench.state.chores.slice()
    assert (bench.top / "upper/directory/lower").read_bytes() == b"LOwer"
    assert b"lower" in rest(bench, nodeid)


def test_what_cannot_be_read_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    nodeid = bench.find(b"directory")
    unique = put_read_dir(bench, nodeid)

    def fails_to_read(*_: object) -> int:
        raise OSError(5, "broken")

    monkeypatch.setattr("overlayfs_py.syscalls.dirents._fill", fails_to_read)
    while bench.state.chores.pending:
        bench.state.chores.slice()
    assert bench.sent[unique][0] == 5
    monkeypatch.undo()
    assert len(rest(bench, nodeid)) == len(NAMES) + 1


def test_whiteouts_of_a_huge_directory_are_removed_by_a_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workdir, "_LARGE", 0)
    nodeid = bench.find(b"directory")
    for name in rest(bench, nodeid)[2:]:
        bench.ask("UNLINK", name + b"\0", nodeid)
    bench.ask("RMDIR", b"directory\0")
    assert not (bench.top / "upper/directory").is_dir()
    while bench.deferrals.running:
        bench.finish()
    assert os.listdir(bench.top / "work/work") in ([], ["incompat"])
    with fails(2):
        bench.ask("RMDIR", b"directory\0")


def test_much_that_is_forgotten_is_forgotten_between_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_MOST", 200)
    nodeid = bench.find(b"directory")
    rest(bench, nodeid, name="READDIRPLUS")
    children = [bench.find(name, nodeid) for name in NAMES if name != b"name1"]
    body = b"".join(struct.pack("=QQ", child, 2) for child in children)
    bench.put("BATCH_FORGET", struct.pack("=II", len(children), 0) + body)
    assert len(bench.state.nodes) > 600
    bench.state.chores.slice()
    unique = bench.put("STATFS")
    assert unique not in bench.sent
    while bench.state.chores.pending:
        bench.state.chores.slice()
    assert unique in bench.sent
    assert len(bench.state.nodes) == 2
