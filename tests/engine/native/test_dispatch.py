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
from tests.engine.native.bench import READ_WRITE, Bench, fails, opened_bench
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
