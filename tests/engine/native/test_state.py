"""What handlers share: a change that the kernel does not know of is told."""

import errno
import os
import stat
import struct

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.union.overlay import AttrChanges, Caller
from tests.engine.native.bench import Bench, fails


def test_set_id_bits_go_when_the_kernel_says_so(bench: Bench) -> None:
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"tool\0")
    nodeid = bench.find(b"tool")
    os.chmod(bench.top / "upper/tool", 0o6755)
    bench.write(nodeid, b"kept")
    assert (bench.top / "upper/tool").stat().st_mode & 0o7777 == 0o6755
    bench.write(nodeid, b"gone", wire.WRITE_KILL_SUIDGID)
    assert (bench.top / "upper/tool").stat().st_mode & 0o7777 == 0o755
    assert bench.notified, "the kernel would run it by the bits it remembers"


def test_a_number_the_kernel_should_have_forgotten_is_stale(bench: Bench) -> None:
    with fails(errno.ESTALE):
        bench.state.node(4711)


def test_what_changed_by_itself_is_told(bench: Bench) -> None:
    """The first change in a lower directory copies it up: other attributes, without a request for them."""
    directory = bench.state.node(bench.find(b"directory"))
    with bench.state.changing(directory, 0):
        bench.overlay.mknod(directory, b"new", stat.S_IFREG | 0o644, 0, Caller())
    assert bench.notified
    bench.notified.clear()
    with bench.state.changing(directory, 0):
        bench.overlay.unlink(directory, b"new")
    assert not bench.notified, "nobody was sent its attributes since"


def test_a_change_that_fails_voids_nothing(bench: Bench) -> None:
    root = bench.overlay.root
    bench.pid = 5
    bench.ask("GETATTR", bytes(16))
    with pytest.raises(FileNotFoundError), bench.state.changing(root, 6):
        bench.overlay.unlink(root, b"missing")
    assert not bench.notified


@pytest.mark.parametrize("collects", [False, True])
def test_times_are_the_kernels_where_it_keeps_them(bench: Bench, collects: bool) -> None:
    """data=writeback: the kernel tells by SETATTR when a file was changed, so our write must not move it."""
    bench.ask("MKNOD", struct.pack("=IIII", 0o100644, 0, 0, 0) + b"new\0")
    node = bench.state.node(bench.find(b"new"))
    bench.overlay.setattr(node, AttrChanges(mtime_ns=123))
    bench.state.collects = collects
    with bench.state.keeping_mtime(node):
        bench.overlay.write(node, 0, b"x")
    assert (bench.overlay.getattr(node).mtime_ns == 123) == collects
