"""Messages to answers without a device: handlers, errors, delays, and a fuzzer over a real overlay."""

import errno
import logging
import os
import random
import resource
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.native import dispatch, wire
from overlayfs_py.engine.native.dispatch import Dispatcher, SessionEnd
from overlayfs_py.engine.native.names import NameRequests
from overlayfs_py.engine.native.negotiation import SessionOptions
from overlayfs_py.union.overlay import Node
from tests.engine.native.bench import BIG, READ_WRITE, Bench, fails, opened_bench
from tests.engine.native.captured import captured

_EACH = 5000  # messages to one overlay


def test_every_row_has_a_handler(bench: Bench) -> None:
    assert set(bench.dispatcher._handlers) == set(wire.OPS)


@pytest.mark.parametrize("name", sorted(dispatch.REFUSED))
def test_refused(bench: Bench, name: str) -> None:
    """ENOSYS, on which the kernel goes on without."""
    row = next(row for row in wire.OPS.values() if row.name == name)
    with fails(errno.ENOSYS):
        bench.ask(name, bytes(row.request.size) + b"name\0" * row.names)


def test_lookup_read_and_forget(bench: Bench) -> None:
    nodeid = bench.find(b"file")
    assert bench.find(b"file") == nodeid
    assert bench.read(nodeid) == b"lower"
    assert bench.read(nodeid, 2) == b"lo"
    bench.forget(nodeid)
    assert bench.read(nodeid) == b"lower"
    bench.put("BATCH_FORGET", struct.pack("=I4xQQ", 1, nodeid, 1), 0)
    bench.state.forgotten.clear()
    with fails(errno.ESTALE):
        bench.read(nodeid)
    assert len(bench.state.nodes) == 1


def test_missing_names_are_remembered(bench: Bench) -> None:
    nodeid, _, seconds = struct.unpack_from("=QQQ", bench.ask("LOOKUP", b"missing\0"))
    assert (nodeid, seconds) == (0, 60)


def test_unlinked_file_is_kept_until_forgotten(bench: Bench) -> None:
    """Without opens only the node says that somebody may still read it."""
    lower = bench.find(b"file")
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0o22, 0) + b"new\0")
    upper = bench.find(b"new")
    bench.write(upper, b"fresh")
    for name, nodeid, content in ((b"file", lower, b"lower"), (b"new", upper, b"fresh")):
        bench.ask("UNLINK", name + b"\0")
        assert bench.read(nodeid) == content
        bench.ask("WRITE", READ_WRITE.pack(0, 0, 2, 0, 0, 0) + b"xy", nodeid)
        assert bench.read(nodeid) == b"xy" + content[2:]
        bench.forget(nodeid, 2)
        with fails(errno.ESTALE):
            bench.read(nodeid)


def test_answer_nobody_waits_for_is_taken_back(bench: Bench) -> None:
    """A LOOKUP that was given up counts for nothing, or its node would never be forgotten."""
    bench.waited_for = False
    bench.put("LOOKUP", b"file\0")
    assert len(bench.state.nodes) == 1


def test_listing_nobody_waits_for_is_taken_back(bench: Bench) -> None:
    """READDIRPLUS hands out what it lists; what was handed out before stays."""
    kept = bench.find(b"file")
    bench.waited_for = False
    unique = bench.put("READDIRPLUS", READ_WRITE.pack(0, 0, 4096, 0, 0, 0))
    assert b"directory" in bench.sent[unique][1]
    assert len(bench.state.nodes) == 2
    assert bench.state.nodes.inode(kept).lookups == 1


def test_unknown_error_is_eio_once_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("a defect")

    monkeypatch.setitem(bench.dispatcher._handlers, 17, broken)
    for _ in range(3):
        with fails(errno.EIO):
            bench.ask("STATFS")
    assert caplog.text.count("Traceback") == 1


def test_long_copy_lets_others_go_on(bench: Bench) -> None:
    """The first write of a big lower file waits for its copy; a stat and another file's write do not."""
    big, small = bench.find(b"big"), bench.find(b"file")
    first = bench.write(big, b"first")
    second = bench.write(big, b"2nd")
    assert first not in bench.sent
    assert second not in bench.sent
    assert bench.sent[bench.write(small, b"other")] == (0, wire.WRITE_OUT.pack(5, 0))
    bench.ask("GETATTR", bytes(16), big)
    while second not in bench.sent:
        bench.finish()
    assert bench.sent[first][0] == bench.sent[second][0] == 0
    assert bench.read(big, 6) == b"2ndstb"
    assert (bench.top / "upper/big").stat().st_size == BIG


def test_failed_copy_is_told_to_the_writer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **hints: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("overlayfs_py.union.copyup.copy_data", no_space)
    big = bench.find(b"big")
    first, second = bench.write(big, b"first"), bench.write(big, b"second")
    while second not in bench.sent:
        bench.finish()
    assert (bench.sent[first][0], bench.sent[second][0]) == (errno.ENOSPC, errno.ENOSPC)
    assert bench.read(big, 3) == b"bbb"
    assert os.listdir(bench.top / "work/work") == ["incompat"], "nothing but the mark of a volatile mount"


def test_interrupt_ends_the_waiting_not_the_copy(bench: Bench) -> None:
    big = bench.find(b"big")
    first, second = bench.write(big, b"first"), bench.write(big, b"second")
    for unique in (second, first, 12345):
        bench.put("INTERRUPT", struct.pack("=Q", unique))
    assert bench.sent[first] == bench.sent[second] == (errno.EINTR, b"")
    bench.finish()
    assert (bench.top / "upper/big").read_bytes() == b"b" * BIG
    assert not bench.deferrals.busy(bench.state.node(big))


def test_forget_during_a_copy(bench: Bench) -> None:
    """The node stays until its copy is over, even when nobody wants it any more."""
    big = bench.find(b"big")
    unique = bench.write(big, b"first")
    bench.put("INTERRUPT", struct.pack("=Q", unique))
    bench.forget(big)
    bench.finish()
    assert len(bench.state.nodes) == 1
    assert bench.read(bench.find(b"big"), 3) == b"bbb"


def test_long_copy_range_in_a_thread(bench: Bench) -> None:
    big = bench.find(b"big")
    entry = bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"copy\0")
    copy = struct.unpack_from("=Q", entry)[0]
    unique = bench.put("COPY_FILE_RANGE_64", struct.pack("=QQQQQQQ", 0, 1, copy, 0, 0, BIG, 0), big)
    assert unique not in bench.sent
    bench.finish()
    assert bench.sent[unique] == (0, struct.pack("=Q", BIG - 1))
    assert (bench.top / "upper/copy").stat().st_size == BIG - 1


def test_set_id_bits_go_when_the_kernel_says_so(bench: Bench) -> None:
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"tool\0")
    nodeid = bench.find(b"tool")
    os.chmod(bench.top / "upper/tool", 0o6755)
    bench.write(nodeid, b"kept")
    assert (bench.top / "upper/tool").stat().st_mode & 0o7777 == 0o6755
    bench.write(nodeid, b"gone", wire.WRITE_KILL_SUIDGID)
    assert (bench.top / "upper/tool").stat().st_mode & 0o7777 == 0o755
    assert bench.notified, "the kernel would run it by the bits it remembers"


def test_copy_of_a_directory_is_told(bench: Bench) -> None:
    """Its attributes changed without any request for it."""
    directory = bench.find(b"directory")
    bench.ask("MKDIR", struct.pack("=II", 0o755, 0) + b"inside\0", directory)
    told = {struct.unpack_from("=Qq", message, 16) for message in bench.notified}
    assert (directory, -1) in told


@pytest.mark.parametrize("value", [b"", b"value" * 100])
def test_xattr_sizes(bench: Bench, value: bytes) -> None:
    nodeid = bench.find(b"file")
    bench.ask("SETXATTR", struct.pack("=IIII", len(value), 0, 0, 0) + b"user.one\0" + value, nodeid)
    asked = bench.ask("GETXATTR", struct.pack("=II", 0, 0) + b"user.one\0", nodeid)
    assert wire.XATTR_SIZE_OUT.unpack(asked) == (len(value), 0)
    assert bench.ask("GETXATTR", struct.pack("=II", 1000, 0) + b"user.one\0", nodeid) == value
    if value:
        with fails(errno.ERANGE):
            bench.ask("GETXATTR", struct.pack("=II", 10, 0) + b"user.one\0", nodeid)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("WRITE", READ_WRITE.pack(0, 0, 9, 0, 0, 0) + b"short"),
        ("SETXATTR", struct.pack("=IIII", 9, 0, 0, 0) + b"user.a\0short"),
    ],
)
def test_lengths_that_lie(bench: Bench, name: str, body: bytes) -> None:
    with fails(errno.EINVAL):
        bench.ask(name, body, bench.find(b"file"))


@pytest.mark.root
def test_missing_capability_is_remembered_until_one_is_set(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel asks before the first write of each file, and again after each change of its attributes."""
    asked = []
    getxattr = bench.overlay.getxattr

    def counted(node: Node, name: bytes) -> bytes:
        asked.append(name)
        return getxattr(node, name)

    monkeypatch.setattr(bench.overlay, "getxattr", counted)
    question = struct.pack("=I4x", 100) + b"security.capability\0"
    nodeid = bench.find(b"file")
    for _ in range(3):
        with fails(errno.ENODATA):
            bench.ask("GETXATTR", question, nodeid)
    assert len(asked) == 1
    value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    bench.ask(
        "SETXATTR", struct.pack("=IIII", len(value), 0, 0, 0) + b"security.capability\0" + value, nodeid
    )
    assert bench.ask("GETXATTR", question, nodeid) == value


def test_old_kernel_ends_the_session(bench: Bench) -> None:
    with pytest.raises(SessionEnd, match="Linux"):
        bench.ask("INIT", struct.pack("=IIII", 7, 20, 0, 0))
    assert bench.sent[2][0] == errno.EPROTO


def _mutated(chance: random.Random, raw: bytes) -> bytes:
    """A message with some bytes changed, or cut off, its length told rightly or not."""
    changed = bytearray(raw)
    for _ in range(chance.randrange(4)):
        changed[chance.randrange(16, len(changed))] = chance.choice((0, 1, 2, 47, 127, 255))
    if chance.random() < 0.2:
        changed = changed[: chance.randrange(len(changed))]
    elif chance.random() < 0.2:
        changed += chance.randbytes(chance.randrange(64))
    if chance.random() < 0.95 and len(changed) >= 4:
        changed[:4] = struct.pack("=I", len(changed))
    return bytes(changed)


# What ends a session, and what only the whole machine has.
NOT_FUZZED = {"INIT", "SYNCFS"}
MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "1000000"))


def _seeds() -> list[bytes]:
    """A message of each kind: the kernel's where one was captured, else zeros with a name."""
    known = captured()
    made = {row.name: _plain(row) for row in wire.OPS.values() if row.name not in known}
    return [raw for name, raw in sorted({**known, **made}.items()) if name not in NOT_FUZZED]


def _plain(row: wire.Op) -> bytes:
    body = bytes(row.request.size) + b"file\0" * row.names + b"text\0" * row.text + bytes(8 * row.payload)
    return wire.IN_HEADER.pack(40 + len(body), row.opcode, 2, 1, 0, 0, 0, 0, 0) + body


@pytest.fixture
def small_files() -> Iterator[None]:
    """Sizes and offsets out of mutated fields must not fill the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _storm(bench: Bench, chance: random.Random, messages: int) -> None:
    """Mutated messages: each is answered at most once, nothing escapes, the overlay goes on working."""
    raws = _seeds()
    nodeids = [1, bench.find(b"file"), bench.find(b"directory"), bench.find(b"big")]
    before = set(os.listdir(bench.top))
    for unique in range(10_000, 10_000 + 2 * messages, 2):
        raw = bytearray(_mutated(chance, chance.choice(raws)))
        if len(raw) >= 24:
            struct.pack_into("=QQ", raw, 8, unique, chance.choice(nodeids))
        bench.dispatcher.serve(raw, len(raw))
        if bench.deferrals.running and chance.random() < 0.3:
            bench.finish()
    while bench.deferrals.running:
        bench.finish()
    assert set(os.listdir(bench.top)) == before
    assert b"lower" in (bench.top / "lower/file").read_bytes()
    bench.ask("MKDIR", struct.pack("=II", 0o755, 0) + b"still alive\0")


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_fuzz(tmp_path: Path, seed: int, opens: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes; an answer EIO that was logged would be a defect."""
    with opened_bench(tmp_path, opens=opens) as bench:
        _storm(bench, random.Random(seed), 800)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("opens", [False, True])
def test_fuzz_long(tmp_path: Path, opens: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The same with FUZZ_MESSAGES messages, on a fresh overlay now and then."""
    first = int(os.environ.get("FUZZ_SEED", str(time.time_ns())))
    caplog.set_level(logging.ERROR)
    for round_ in range(-(-MESSAGES // 2 // _EACH)):
        top = tmp_path / str(round_)
        top.mkdir()
        with opened_bench(top, opens=opens) as bench:
            _storm(bench, random.Random(first + round_), _EACH)
        assert not caplog.records, f"FUZZ_SEED={first + round_}"
        shutil.rmtree(top)


def test_a_handler_that_does_not_fit_its_row_is_found_at_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One argument less than the message has, or no such method: no session begins."""
    monkeypatch.setattr(NameRequests, "symlink", lambda self, request, name: b"")
    with pytest.raises(ValueError, match="SYMLINK has 2 arguments, its handler takes 1"):
        Dispatcher(bench.state, lambda *_: True, SessionOptions())
    monkeypatch.delattr(NameRequests, "symlink")
    with pytest.raises(ValueError, match="SYMLINK has no handler"):
        Dispatcher(bench.state, lambda *_: True, SessionOptions())
