"""Union values to pyfuse3's reply objects, each field set once (benchmarks: scandir+stat of 10,000,
first).
"""

import os
import time

import pyfuse3

from overlayfs_py.union.overlay import NOW, Attr, AttrChanges

SETID_BITS = 0o6000


def fill(entry: pyfuse3.EntryAttributes, attr: Attr) -> None:
    """Set all attributes except the inode number."""
    (
        _,
        entry.st_mode,
        entry.st_nlink,
        entry.st_uid,
        entry.st_gid,
        entry.st_rdev,
        entry.st_size,
        entry.st_blocks,
        entry.st_blksize,
        entry.st_atime_ns,
        entry.st_mtime_ns,
        entry.st_ctime_ns,
    ) = attr


def statfs_reply(found: os.statvfs_result) -> pyfuse3.StatvfsData:
    """Return the answer to STATFS."""
    reply = pyfuse3.StatvfsData()
    for name in (
        "f_bsize",
        "f_frsize",
        "f_blocks",
        "f_bfree",
        "f_bavail",
        "f_files",
        "f_ffree",
        "f_favail",
        "f_namemax",
    ):
        setattr(reply, name, getattr(found, name))
    return reply


def as_touched(changes: AttrChanges) -> AttrChanges:
    """Return `changes` with NOW for times that may mean it: both are equal and less than a second old."""
    just_now = changes.atime_ns is not None and abs(time.time_ns() - changes.atime_ns) < 10**9
    if just_now and changes.atime_ns == changes.mtime_ns:
        return changes._replace(atime_ns=NOW, mtime_ns=NOW)
    return changes
