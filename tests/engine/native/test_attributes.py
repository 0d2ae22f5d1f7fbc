"""Requests about attributes and xattrs: their sizes, and what the kernel need not ask again."""

import errno
import struct

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.union.overlay import Node
from tests.engine.native.bench import Bench, fails


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
