"""Data descriptors: one a node, opened when needed."""

import os
from pathlib import Path

import pytest

from tests.trees import Dir, File, Symlink, fifo
from tests.union.conftest import Opener
from tests.union.crowds import Watch, many_files, many_names

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("few_descriptors")]


def test_files_that_are_open_are_bounded_too(open_union: Opener) -> None:
    """A hundred handles need no hundred descriptors; each still writes into its own file."""
    union = open_union(many_files())
    watch = Watch()
    handles = {name: union.open(name, os.O_RDWR, 0) for name in many_names()}
    watch.check()
    for fd in handles.values():
        assert union.pwrite(fd, b"LOWER", 0) == 5
    watch.check()
    for name, fd in handles.items():
        assert union.pread(fd, 100, 0) == b"LOWER " + name
        union.close(fd)


def test_nothing_is_open_for_writing_after_a_rest(open_union: Opener) -> None:
    """So that the file system of the upper can be remounted read-only; what follows opens it again."""
    union = open_union({"f": File(b"lower")})
    fd = union.open(b"f", os.O_RDWR, 0)
    union.pwrite(fd, b"L", 0)
    union.write_file(b"new", b"new")
    union.overlay.rest()
    assert not [path for path in _open_for_writing() if path.startswith(str(union.upper))]
    union.pwrite(fd, b"!", 5)
    assert union.pread(fd, 100, 0) == b"Lower!"
    union.close(fd)


def _open_for_writing() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            flags = Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
            found.append(path)
    return found


LOWER = {"d/f": File(b"old content"), "d/l": Symlink("f"), "d/p": fifo(), "d/sub": Dir()}


def test_a_reader_sees_what_a_writer_writes(open_union: Opener) -> None:
    """A descriptor opened on the lower file follows the copy-up."""
    union = open_union(LOWER)
    reader = union.open(b"d/f", os.O_RDONLY, 0)
    assert union.pread(reader, 3, 0) == b"old"
    writer = union.open(b"d/f", os.O_RDWR, 0)
    union.pwrite(writer, b"new", 0)
    assert union.pread(reader, 100, 0) == b"new content"
    union.close(writer)
    assert union.pread(reader, 100, 0) == b"new content"
    assert union.fstatus(reader) == union.lstat(b"d/f")


def test_a_reader_outlives_a_rename_over_its_file(open_union: Opener) -> None:
    """The old content stays for whoever holds it."""
    union = open_union(LOWER)
    reader = union.open(b"d/f", os.O_RDONLY, 0)
    union.write_file(b"new", b"new")
    union.rename(b"new", b"d/f", 0)
    assert union.pread(reader, 100, 0) == b"old content"
    assert union.content(b"d/f") == b"new"


def test_append_goes_to_the_end_of_a_lower_file(open_union: Opener) -> None:
    """O_APPEND on the first open, through two descriptors."""
    union = open_union(LOWER)
    first = union.open(b"d/f", os.O_WRONLY | os.O_APPEND, 0)
    second = union.open(b"d/f", os.O_WRONLY | os.O_APPEND, 0)
    union.write(first, b"1")
    union.write(second, b"2")
    union.write(first, b"3")
    assert union.content(b"d/f") == b"old content123"


def test_a_descriptor_is_the_nodes_not_the_opens(open_union: Opener) -> None:
    """Two handles of a file have one; it is the upper's once the file is copied up."""
    union = open_union({"f": File(b"old")})
    node = union.overlay.lookup(union.overlay.root, b"f")
    assert node is not None
    reader, other = (union.overlay.open_file(node, os.O_RDONLY) for _ in range(2))
    assert reader.fd == other.fd == node.fd
    lower = os.fstat(reader.fd).st_ino
    writer = union.overlay.open_file(node, os.O_RDWR)
    assert reader.fd == writer.fd
    assert os.fstat(reader.fd).st_ino != lower
    for opened in (reader, other, writer):
        union.overlay.release(opened)
    assert node.opens == 0


def test_a_lowers_access_time_stays(open_union: Opener) -> None:
    """Reading through the mount leaves no trace in a layer that others may share (ovl_path_open)."""
    union = open_union({"f": File(b"old")})
    lower = union.layers.lowers[0] / "f"
    os.utime(lower, ns=(1, 2))
    assert union.content(b"f") == b"old"
    assert lower.stat().st_atime_ns == 1
