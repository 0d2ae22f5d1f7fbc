"""A dispatcher over a small overlay, without a device: what the tests of single requests ask."""

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.engine.caching import cache_policy
from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.dispatch import Dispatcher
from overlayfs_py.engine.native.negotiation import SessionOptions
from overlayfs_py.engine.native.state import SessionState
from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Overlay

BIG = 3 << 20
READ_WRITE = struct.Struct("=QQIIQI4x")


class Bench:
    """A dispatcher over a small overlay; `ask` is a request's way and back."""

    def __init__(self, top: Path, *, volatile: bool = True, opens: bool = False) -> None:
        for part in ("lower", "upper", "work"):
            (top / part).mkdir()
        (top / "lower/file").write_bytes(b"lower")
        (top / "lower/big").write_bytes(b"b" * BIG)
        (top / "lower/directory").mkdir()
        self.top = top
        options = UnionOptions(
            lower=(os.fsencode(top / "lower"),),
            upper=os.fsencode(top / "upper"),
            work=os.fsencode(top / "work"),
            volatile=volatile,
        )
        self.overlay = Overlay.open(options)
        self.woken = threading.Event()
        self.deferrals = Deferrals(2, self.woken.set)
        self.notified: list[bytes] = []
        self.state = SessionState(self.overlay, cache_policy(60.0), self.deferrals, self.notified.append)
        self.sent: dict[int, tuple[int, bytes]] = {}
        self.waited_for = True
        self.dispatcher = Dispatcher(self.state, self._send, SessionOptions(no_open=not opens))
        self.pid = 0  # who asks
        self._unique = 0

    def _send(self, header: bytes, body: bytes = b"") -> bool:
        size, error, unique = wire.OUT_HEADER.unpack(header)
        assert size == len(header) + len(body), "a length that lies"
        assert unique not in self.sent, "answered twice"
        assert not (error and body)
        self.sent[unique] = (-error, body)
        return self.waited_for

    def put(self, name: str, body: bytes = b"", nodeid: int = 1, uid: int = 0) -> int:
        """Hand a message over; its unique."""
        opcode = next(row.opcode for row in wire.OPS.values() if row.name == name)
        self._unique += 2
        header = wire.IN_HEADER.pack(40 + len(body), opcode, self._unique, nodeid, uid, uid, self.pid, 0, 0)
        raw = bytearray(header + body)
        self.dispatcher.serve(raw, len(raw))
        raw[:] = b"\xff" * len(raw)  # the loop reads the next message into the same buffer
        return self._unique

    def ask(self, name: str, body: bytes = b"", nodeid: int = 1, uid: int = 0) -> bytes:
        """The answer; OSError when it is an errno."""
        unique = self.put(name, body, nodeid, uid)
        while unique not in self.sent:
            if self.state.chores.pending:
                self.state.chores.slice()
            else:
                self.finish()
        error, answer = self.sent[unique]
        if error:
            raise OSError(error, os.strerror(error))
        return answer

    def finish(self) -> None:
        """Wait for a worker and do what follows."""
        assert self.woken.wait(10)
        self.woken.clear()
        self.deferrals.complete()

    def forget(self, nodeid: int, lookups: int = 1) -> None:
        """As the kernel does, and until the loop has had time for it."""
        self.put("FORGET", struct.pack("=Q", lookups), nodeid)
        self.state.forgotten.clear()

    def find(self, name: bytes, nodeid: int = 1) -> int:
        found = struct.unpack_from("=Q", self.ask("LOOKUP", name + b"\0", nodeid))[0]
        assert found
        return int(found)

    def write(self, nodeid: int, data: bytes, flags: int = 0) -> int:
        return self.put("WRITE", READ_WRITE.pack(0, 0, len(data), flags, 0, 0) + data, nodeid)

    def read(self, nodeid: int, size: int = 100) -> bytes:
        return self.ask("READ", READ_WRITE.pack(0, 0, size, 0, 0, 0), nodeid)


@contextlib.contextmanager
def opened_bench(top: Path, *, volatile: bool = True, opens: bool = False) -> Iterator[Bench]:
    """A bench whose directories are made in `top`."""
    made = Bench(top, volatile=volatile, opens=opens)
    yield made
    made.deferrals.close()
    made.dispatcher.opens.drop_all()
    made.overlay.close()


def fails(code: int) -> "pytest.RaisesExc[OSError]":
    return pytest.raises(OSError, check=lambda error: error.errno == code)
