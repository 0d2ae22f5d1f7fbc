"""INIT: what is taken of what the kernel offers."""

import struct

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.message import parse
from overlayfs_py.engine.native.negotiation import (
    MAX_WRITE,
    Negotiated,
    SessionOptions,
    VersionRefused,
    negotiate,
)
from overlayfs_py.engine.native.wire import Init
from tests.engine.native.captured import captured

RAW = captured()["INIT"]
Offer = tuple[int, int, int, int, bytes]
OFFER: Offer = parse(RAW, len(RAW)).arguments
ALL: Offer = (7, 45, 131072, 0xFFFFFFFF, b"\xff" * 4)


def agree(requested: SessionOptions, offer: Offer = OFFER) -> Negotiated:
    session = negotiate(*offer, requested)
    assert session is not None
    return session


def test_reply_says_what_was_agreed() -> None:
    session = agree(SessionOptions())
    fields = wire.INIT_OUT.unpack(session.reply)
    assert fields[:2] == (7, 45)
    assert fields[3] | fields[10] << 32 == session.flags
    assert fields[6:9] == (MAX_WRITE, 1, 256)
    assert session.max_write == MAX_WRITE


@pytest.mark.parametrize(
    ("requested", "taken", "left"),
    [
        (
            SessionOptions(),
            "POSIX_ACL DONT_MASK HANDLE_KILLPRIV_V2 NO_OPEN_SUPPORT EXPLICIT_INVAL_DATA",
            "PASSTHROUGH",
        ),
        (SessionOptions(acl=False), "DONT_MASK", "POSIX_ACL"),
        (SessionOptions(), "NO_OPENDIR_SUPPORT", "WRITEBACK_CACHE ATOMIC_O_TRUNC ASYNC_DIO"),
        (SessionOptions(changing=True), "AUTO_INVAL_DATA", "WRITEBACK_CACHE EXPLICIT_INVAL_DATA"),
        (
            SessionOptions(no_open=False, passthrough=True),
            "PASSTHROUGH ATOMIC_O_TRUNC",
            "WRITEBACK_CACHE NO_OPEN_SUPPORT",
        ),
    ],
)
def test_wishes(requested: SessionOptions, taken: str, left: str) -> None:
    session = agree(requested)
    assert [name for name in taken.split() if not session.has(Init[name])] == []
    assert [name for name in left.split() if session.has(Init[name])] == []


def test_nothing_is_taken_that_was_not_offered() -> None:
    few = Init.HANDLE_KILLPRIV_V2 | Init.SETXATTR_EXT | Init.MAX_PAGES
    session = agree(SessionOptions(), (7, 36, 131072, int(few), b""))
    assert session.flags == few
    assert session.minor == 36


def test_flags2_count_only_with_init_ext() -> None:
    plain = (7, 45, 131072, 0xFFFFFFFF & ~Init.INIT_EXT, b"\xff" * 4)
    assert not agree(SessionOptions(passthrough=True), plain).has(Init.PASSTHROUGH)
    assert agree(SessionOptions(passthrough=True), ALL).has(Init.PASSTHROUGH)


def test_stack_depth_only_with_passthrough() -> None:
    depth = struct.Struct("=I")
    assert depth.unpack_from(agree(SessionOptions(passthrough=True), ALL).reply, 36) == (1,)
    assert depth.unpack_from(agree(SessionOptions(), ALL).reply, 36) == (0,)


def test_newer_major_is_asked_again() -> None:
    assert negotiate(8, 0, 131072, 0xFFFFFFFF, b"", SessionOptions()) is None


@pytest.mark.parametrize("version", [(6, 45), (7, 32)])
def test_old_kernels_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(VersionRefused, match=r"Linux 5\.12"):
        negotiate(*version, 131072, 0xFFFFFFFF, b"", SessionOptions())


def test_missing_ability_is_named() -> None:
    with pytest.raises(VersionRefused, match="SETXATTR_EXT"):
        negotiate(7, 45, 131072, 0xFFFFFFFF & ~Init.SETXATTR_EXT, b"", SessionOptions())
