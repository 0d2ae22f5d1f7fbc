"""The gate of a frozen mount: which requests wait, and that the others go on."""

import os
import struct
from typing import Any, cast

import pytest

from overlayfs_py.engine.base import CHANGING
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.deferral import FROZEN, Busy
from overlayfs_py.engine.native.gate import closed
from tests.engine.native.bench import Bench


def _opcode(name: str) -> int:
    return next(row.opcode for row in wire.OPS.values() if row.name == name)


def _is_held(name: str, *arguments: object, write_back: bool = False) -> bool:
    """Whether a frozen mount holds this request."""
    handlers = dict.fromkeys(wire.OPS, lambda *_: b"answered")
    handler = closed(handlers, write_back=write_back)[_opcode(name)]
    try:
        return handler(cast(Any, None), *arguments) != b"answered"
    except Busy as busy:
        return busy.node is FROZEN


@pytest.mark.parametrize("row", wire.OPS.values(), ids=lambda row: row.name)
def test_what_changes_something_waits(row: wire.Op) -> None:
    """By the list that both engines share; of OPEN and IOCTL the arguments tell."""
    if row.name not in ("OPEN", "IOCTL"):
        arguments = (0,) * 20
        assert _is_held(row.name, *arguments) == (row.name.lower() in CHANGING)


@pytest.mark.parametrize(
    ("flags", "held"),
    [(os.O_RDONLY, False), (os.O_WRONLY, True), (os.O_RDWR, True), (os.O_RDONLY | os.O_TRUNC, True)],
)
def test_opens_that_write_wait(flags: int, held: bool) -> None:
    assert _is_held("OPEN", flags, 0) == held


def test_flags_may_be_asked_for_and_not_set() -> None:
    get, change = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
    assert not _is_held("IOCTL", 0, 0, get, 0, 0, 8, b"")
    assert _is_held("IOCTL", 0, 0, change, 0, 8, 0, bytes(8))


def test_pages_changed_before_may_be_written_back() -> None:
    """Only while a snapshot is prepared: what is new waits all the same."""
    back = (0, 0, 1, wire.WRITE_CACHE, 0, 0, b"x")
    new = (0, 0, 1, 0, 0, 0, b"x")
    assert not _is_held("WRITE", *back, write_back=True)
    assert _is_held("WRITE", *new, write_back=True)
    assert _is_held("WRITE", *back)


def test_a_held_request_can_be_interrupted(bench: Bench) -> None:
    """Its sender may be killed; nothing is done for it later."""
    bench.dispatcher.freeze(write_back=False)
    unique = bench.put("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
    assert unique not in bench.sent
    bench.put("INTERRUPT", struct.pack("=Q", unique))
    assert bench.sent[unique][0] == 4
    bench.dispatcher.thaw()
    assert not os.path.exists(bench.top / "upper/new")
