"""Union values as pyfuse3's reply objects."""

import os
import time

import pytest

pyfuse3 = pytest.importorskip("pyfuse3")

from overlayfs_py.engine.libfuse.replies import as_touched, fill, statfs_reply  # noqa: E402
from overlayfs_py.union.overlay import NOW, Attr, AttrChanges  # noqa: E402


def test_every_attribute_has_its_place() -> None:
    """Each has another value here, so that none stands for another; the inode number is said separately."""
    attr = Attr(1, 0o100644, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    entry = pyfuse3.EntryAttributes()
    fill(entry, attr)
    names = ("mode", "nlink", "uid", "gid", "rdev", "size", "blocks", "blksize")
    assert [getattr(entry, f"st_{name}") for name in names] == list(attr[1:9])
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (10, 11, 12)


def test_statfs_is_the_file_systems() -> None:
    found = os.statvfs("/")
    reply = statfs_reply(found)
    assert (reply.f_bsize, reply.f_blocks, reply.f_files, reply.f_namemax) == (
        found.f_bsize,
        found.f_blocks,
        found.f_files,
        found.f_namemax,
    )


def test_times_of_just_now_were_not_chosen() -> None:
    """libfuse does not say that a time is «now»: two equal ones of this second are."""
    now = time.time_ns()
    assert as_touched(AttrChanges(atime_ns=now, mtime_ns=now)) == AttrChanges(atime_ns=NOW, mtime_ns=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        AttrChanges(atime_ns=1, mtime_ns=1),
        AttrChanges(atime_ns=time.time_ns(), mtime_ns=1),
        AttrChanges(mtime_ns=5, mode=0o600),
        AttrChanges(size=0),
    ],
)
def test_chosen_times_stay(changes: AttrChanges) -> None:
    assert as_touched(changes) == changes
