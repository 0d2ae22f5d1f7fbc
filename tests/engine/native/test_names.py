"""Requests about names: found, made, moved and removed ones, and what each answer says of them."""

import errno
import os
import struct

import pytest

from tests.engine.native.bench import READ_WRITE, Bench, fails


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


MKNOD = struct.pack("=IIII", 0o100644, 0, 0, 0)


def test_what_is_made_is_found(bench: Bench) -> None:
    """Each answer has the nodeid that a lookup gives."""
    made = {
        b"file2": bench.ask("MKNOD", MKNOD + b"file2\0"),
        b"dir": bench.ask("MKDIR", struct.pack("=II", 0o755, 0) + b"dir\0"),
        b"link": bench.ask("SYMLINK", b"link\0target\0"),
    }
    for name, answer in made.items():
        assert struct.unpack_from("=Q", answer)[0] == bench.find(name)
    assert bench.ask("READLINK", b"", bench.find(b"link")) == b"target"


def test_a_link_is_the_same_inode(bench: Bench) -> None:
    nodeid = bench.find(b"file")
    answer = bench.ask("LINK", struct.pack("=Q", nodeid) + b"further\0")
    assert struct.unpack_from("=Q", answer)[0] == nodeid == bench.find(b"further")


def test_a_renamed_node_keeps_its_number(bench: Bench) -> None:
    """What the kernel has open goes on under the new name."""
    nodeid = bench.find(b"file")
    directory = bench.find(b"directory")
    bench.ask("RENAME", struct.pack("=Q", directory) + b"file\0moved\0")
    assert bench.find(b"moved", directory) == nodeid
    assert struct.unpack_from("=Q", bench.ask("LOOKUP", b"file\0"))[0] == 0


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("UNLINK", b"missing\0", errno.ENOENT),
        ("UNLINK", b"directory\0", errno.EISDIR),
        ("RMDIR", b"file\0", errno.ENOTDIR),
        ("MKDIR", struct.pack("=II", 0o755, 0) + b"file\0", errno.EEXIST),
        ("RENAME", struct.pack("=Q", 1) + b"missing\0new\0", errno.ENOENT),
    ],
)
def test_what_is_refused_copies_nothing_up(bench: Bench, name: str, body: bytes, code: int) -> None:
    with fails(code):
        bench.ask(name, body)
    assert os.listdir(bench.top / "upper") == []
