"""A stack read without a mount: what it shows is what a mount shows, and nothing is written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from overlayfs_py.errors import LayerError
from overlayfs_py.union.reading import Reading
from tests import snapshots
from tests.trees import Dir, File, Whiteout
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]

LOWER = {"d/f": File(b"f"), "d/gone": File(), "d/sub/x": File(b"x"), "e/g": File(b"g")}


@contextmanager
def _read(union: Union, *, aufs: str = "off") -> Iterator[Reading]:
    """The layers of a union, which is closed."""
    union.close_all_layers()
    lowers = [os.fsencode(path) for path in union.layers.lowers]
    with Reading(os.fsencode(union.upper), lowers, work=os.fsencode(union.work), aufs=aufs) as reading:
        yield reading


def _tree(reading: Reading) -> set[bytes]:
    found = {b""}
    pending = [(b"", reading.root)]
    while pending:
        path, directory = pending.pop()
        for name, _ in reading.names(directory):
            child = reading.lookup(directory, name)
            assert child is not None
            where = os.path.join(path, name)
            found.add(where)
            if child.is_dir:
                pending.append((where, child))
    return found


def test_it_shows_what_a_mount_shows(open_union: Opener) -> None:
    """After removals, renames with redirects, copies without data and hard links."""
    union = open_union(LOWER, redirect_dir="on", metacopy="on", index="on")
    union.unlink(b"d/gone")
    union.rename(b"d/sub", b"e/moved", 0)
    union.chmod(b"d/f", 0o600)
    union.link(b"e/g", b"linked")
    wanted = set(union.snapshot())
    with _read(union) as reading:
        assert _tree(reading) == wanted
        node = reading.find(b"e/moved/x")
        assert node is not None
        assert node.upper is None
        assert reading.find(b"d/gone") is None


def test_a_node_has_its_parts(open_union: Opener) -> None:
    """`top` has the metadata that counts, `data` the contents."""
    union = open_union(LOWER, redirect_dir="on", metacopy="on")
    union.chmod(b"d/f", 0o600)
    with _read(union) as reading:
        node = reading.find(b"d/f")
        assert node is not None
        assert node.metacopy
        assert node.top.stat().st_mode & 0o777 == 0o600
        fd = node.data.open(os.O_RDONLY)
        assert os.read(fd, 10) == b"f"
        os.close(fd)


def test_what_the_upper_holds(open_union: Opener) -> None:
    """Names and whiteouts of the upper alone, and the directory as it was without it."""
    union = open_union(LOWER)
    union.unlink(b"d/gone")
    union.write_file(b"d/new", b"")
    with _read(union) as reading:
        directory = reading.find(b"d")
        assert directory is not None
        names, whiteouts = reading.upper_names(directory)
        assert [name for name, _ in names] == [b"new"]
        assert whiteouts == [b"gone"]
        below = reading.without_upper(directory)
        assert sorted(name for name, _ in reading.names(below)) == [b"f", b"gone", b"sub"]
        assert directory.upper is not None
        assert sorted(name for name, _ in reading.raw_names(directory.upper)) == [b"gone", b"new"]
        assert reading.is_whiteout(directory.upper.child(b"gone"))
        assert not reading.is_whiteout(directory.upper.child(b"new"))


def test_a_live_mount_is_read_as_well(open_union: Opener) -> None:
    """No lock is taken and nothing is written, so whoever has the layers mounted does not notice."""
    union = open_union(LOWER)
    union.write_file(b"d/new", b"new")
    before = snapshots.directory(union.upper)
    lowers = [os.fsencode(path) for path in union.layers.lowers]
    with Reading(os.fsencode(union.upper), lowers, work=os.fsencode(union.work)) as reading:
        assert reading.find(b"d/new") is not None
        union.unlink(b"d/new")
        assert reading.find(b"d/new") is None
    union.write_file(b"d/new", b"new")
    assert snapshots.directory(union.upper)[b"d/new"].sha == before[b"d/new"].sha


def test_aufs_marks_are_names_unless_the_option_says_otherwise(open_union: Opener) -> None:
    union = open_union({"d": Dir(), "d/f": Whiteout(form="aufs")}, {"d/f": File()})
    with _read(union) as reading:
        assert reading.find(b"d/f") is not None
    with _read(union, aufs="on") as reading:
        assert reading.find(b"d/f") is None


def test_a_directory_that_is_not_there_is_named() -> None:
    with pytest.raises(LayerError, match="upperdir /nonexistent"):
        Reading(b"/nonexistent", [])
