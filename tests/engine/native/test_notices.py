"""Who was sent attributes just before they changed: the kernel must not keep what is under way to others."""

import struct
from collections.abc import Callable

import pytest

from overlayfs_py.engine.native import wire
from tests.engine.native.bench import READ_WRITE, Bench

ROOT = 1
ASKER, OTHER, CHANGER, HIDDEN = 11, 12, 13, 0
GETATTR = bytes(16)
MKNOD = struct.pack("=IIII", 0o100644, 0, 0, 0)
LIST = READ_WRITE.pack(0, 0, 4096, 0, 0, 0)


def voided(bench: Bench, pid: int, name: str, body: bytes, nodeid: int = ROOT) -> list[int]:
    """The inodes whose attributes the kernel is made to ask for again by this request of thread `pid`."""
    bench.pid = pid
    bench.notified.clear()
    bench.ask(name, body, nodeid)
    while bench.deferrals.running:
        bench.finish()
    found = [wire.INVAL_INODE_OUT.unpack_from(message, wire.OUT_HEADER.size) for message in bench.notified]
    assert all(offset < 0 for _, offset, _ in found)  # with a range it would wait for pages
    return [nodeid for nodeid, _, _ in found]


def test_a_thread_by_itself_costs_nothing(bench: Bench) -> None:
    """It has taken in each answer before it goes on."""
    for name, body in (("GETATTR", GETATTR), ("MKNOD", MKNOD + b"new\0"), ("UNLINK", b"new\0")):
        assert voided(bench, ASKER, name, body) == []


def test_others_once(bench: Bench) -> None:
    voided(bench, ASKER, "GETATTR", GETATTR)
    assert voided(bench, CHANGER, "MKNOD", MKNOD + b"new\0") == [ROOT]
    assert voided(bench, CHANGER, "UNLINK", b"new\0") == []


@pytest.mark.parametrize("askers", [(CHANGER, OTHER), (OTHER, CHANGER), (HIDDEN,)])
def test_several_or_hidden(bench: Bench, askers: tuple[int, ...]) -> None:
    """Somebody else is among them; 0 is whoever cannot be seen, even when the changer has that number too."""
    for requester in askers:
        voided(bench, requester, "GETATTR", GETATTR)
    changer = HIDDEN if HIDDEN in askers else CHANGER
    assert voided(bench, changer, "MKNOD", MKNOD + b"new\0") == [ROOT]


@pytest.mark.parametrize(("name", "body"), [("LOOKUP", b"directory\0"), ("READDIRPLUS", LIST)])
def test_entries_tell_attributes(bench: Bench, name: str, body: bytes) -> None:
    bench.pid = ASKER
    nodeid = bench.find(b"directory")
    assert voided(bench, ASKER, "MKNOD", MKNOD + b"first\0", nodeid)[1:] == []  # the first copies it up
    voided(bench, ASKER, name, body)
    assert voided(bench, CHANGER, "MKNOD", MKNOD + b"new\0", nodeid) == [nodeid]


def test_written_back_pages(bench: Bench) -> None:
    """Only for these does the kernel leave answers under way as they are. It does not say whose they are."""
    bench.pid = ASKER
    nodeid = bench.find(b"file")
    write = READ_WRITE.pack(0, 0, 1, 0, 0, 0) + b"x"
    back = READ_WRITE.pack(0, 0, 1, wire.WRITE_CACHE, 0, 0) + b"x"
    voided(bench, CHANGER, "WRITE", write, nodeid)  # copies it up
    voided(bench, ASKER, "GETATTR", GETATTR, nodeid)
    assert voided(bench, CHANGER, "WRITE", write, nodeid) == []
    assert voided(bench, HIDDEN, "WRITE", back, nodeid) == [nodeid]
    assert voided(bench, HIDDEN, "WRITE", back, nodeid) == []


def linked(bench: Bench, nodeid: int, name: bytes) -> int:
    """How many seconds the kernel may keep what LINK has told."""
    answer = bench.ask("LINK", struct.pack("=Q", nodeid) + name + b"\0")
    return int(wire.ENTRY_HEAD.unpack_from(answer)[3])


def test_link_of_a_mapped_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing voids that answer, so it is not to be kept; an earlier one has to go once it was taken in."""
    later: list[Callable[[], None]] = []
    monkeypatch.setattr(bench.deferrals, "later", lambda seconds, then: later.append(then))
    nodeid = bench.find(b"file")
    assert linked(bench, nodeid, b"first") > 0
    back = READ_WRITE.pack(0, 0, 1, wire.WRITE_CACHE, 0, 0) + b"x"
    voided(bench, HIDDEN, "WRITE", back, nodeid)
    assert linked(bench, nodeid, b"second") == 0
    (then,) = later
    bench.notified.clear()
    then()
    bench.finish()
    assert len(bench.notified) == 1
    voided(bench, HIDDEN, "WRITE", back, nodeid)
    assert len(later) == 1


def test_setting_tells_attributes(bench: Bench) -> None:
    nodeid = bench.find(b"directory")
    voided(bench, ASKER, "SETATTR", struct.pack("=I4xQqQqqqIIII4xII4x", *(0,) * 13), nodeid)
    bench.pid = CHANGER
    assert nodeid in voided(
        bench, CHANGER, "SETXATTR", struct.pack("=IIII", 0, 0, 0, 0) + b"user.x\0", nodeid
    )
