"""Attributes as values: ids that the mount shows and the layers have, and owners kept in an xattr."""

import os
import stat

import pytest

from overlayfs_py.options import IdRange
from overlayfs_py.union.attr import (
    OVERFLOW_ID,
    Attr,
    IdMap,
    d_type,
    format_override,
    make_attr,
    mode_override,
)

RANGES = (IdRange(in_mount=0, in_layer=1000, size=1), IdRange(in_mount=1, in_layer=100_000, size=65_536))


def test_without_ranges_every_id_is_itself() -> None:
    ids = IdMap((), None)
    assert ids.trivial
    assert ids.to_mount(4711) == ids.to_layer(4711) == 4711


def test_ids_of_a_range_go_both_ways() -> None:
    """What is stored for an id is shown as that id again."""
    ids = IdMap(RANGES, None)
    assert [ids.to_mount(n) for n in (1000, 100_000, 165_535)] == [0, 1, 65_536]
    assert [ids.to_layer(ids.to_mount(n)) for n in (1000, 100_000, 165_535)] == [1000, 100_000, 165_535]


def test_an_id_of_a_layer_without_a_range_shows_as_nobody() -> None:
    assert IdMap(RANGES, None).to_mount(999) == OVERFLOW_ID == 65_534


def test_an_id_of_the_mount_without_a_range_cannot_be_stored() -> None:
    with pytest.raises(KeyError):
        IdMap(RANGES, None).to_layer(65_537)


def test_squashing_shows_one_id_and_stores_each() -> None:
    """Only what is shown is squashed, as by fuse-overlayfs."""
    ids = IdMap((), 7)
    assert not ids.trivial
    assert (ids.to_mount(0), ids.to_mount(4711), ids.to_layer(4711)) == (7, 7, 4711)


def test_an_override_reads_back() -> None:
    assert mode_override(format_override(1000, 2000, stat.S_IFREG | 0o4755)) == (1000, 2000, 0o4755)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"0:0:0755", (0, 0, 0o755)),
        (b"1:2:0644:file", (1, 2, 0o644)),  # containers/storage says the type, too
        (b"1:2:0100644", (1, 2, 0o644)),
        (b"1:2", None),
        (b"", None),
        (b"a:b:c", None),
        (b"1:2:0999", None),
    ],
)
def test_overrides_of_others(value: bytes, found: tuple[int, int, int] | None) -> None:
    """None: malformed, and so it counts for nothing."""
    assert mode_override(value) == found


def test_attributes_are_the_stats_but_for_number_and_links() -> None:
    st = os.stat("/")
    attr = make_attr(st, 5, 6)
    assert isinstance(attr, Attr)
    assert (attr.ino, attr.nlink) == (5, 6)
    assert (attr.mode, attr.uid, attr.size, attr.mtime_ns) == (
        st.st_mode,
        st.st_uid,
        st.st_size,
        st.st_mtime_ns,
    )


def test_types_of_directory_entries() -> None:
    """DT_* of dirent.h are S_IFMT's bits, shifted."""
    assert [
        d_type(kind) for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
    ] == [
        1,
        2,
        4,
        8,
        10,
    ]
