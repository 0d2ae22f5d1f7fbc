"""The protocol's table: every row against what the kernel's header says, and against itself."""

from struct import Struct

import pytest

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.dispatch import REFUSED
from overlayfs_py.engine.native.wire import Op

# <linux/fuse.h> of 6.18 (protocol 7.45): opcode, and the size of its fixed request and reply.
HEADER = {
    "LOOKUP": (1, 0, 128),
    "FORGET": (2, 8, None),
    "GETATTR": (3, 16, 104),
    "SETATTR": (4, 88, 104),
    "READLINK": (5, 0, None),
    "SYMLINK": (6, 0, 128),
    "MKNOD": (8, 16, 128),
    "MKDIR": (9, 8, 128),
    "UNLINK": (10, 0, None),
    "RMDIR": (11, 0, None),
    "RENAME": (12, 8, None),
    "LINK": (13, 8, 128),
    "OPEN": (14, 8, 16),
    "READ": (15, 40, None),
    "WRITE": (16, 40, 8),
    "STATFS": (17, 0, 80),
    "RELEASE": (18, 24, None),
    "FSYNC": (20, 16, None),
    "SETXATTR": (21, 16, None),
    "GETXATTR": (22, 8, None),
    "LISTXATTR": (23, 8, None),
    "REMOVEXATTR": (24, 0, None),
    "FLUSH": (25, 24, None),
    "INIT": (26, 16, 64),
    "OPENDIR": (27, 8, 16),
    "READDIR": (28, 40, None),
    "RELEASEDIR": (29, 24, None),
    "FSYNCDIR": (30, 16, None),
    "GETLK": (31, 48, None),
    "SETLK": (32, 48, None),
    "SETLKW": (33, 48, None),
    "ACCESS": (34, 8, None),
    "CREATE": (35, 16, 144),
    "INTERRUPT": (36, 8, None),
    "BMAP": (37, 16, None),
    "DESTROY": (38, 0, None),
    "IOCTL": (39, 32, 16),
    "POLL": (40, 24, 8),
    "NOTIFY_REPLY": (41, 0, None),
    "BATCH_FORGET": (42, 8, None),
    "FALLOCATE": (43, 32, None),
    "READDIRPLUS": (44, 40, None),
    "RENAME2": (45, 16, None),
    "LSEEK": (46, 24, 8),
    "COPY_FILE_RANGE": (47, 56, 8),
    "SYNCFS": (50, 8, None),
    "TMPFILE": (51, 16, 144),
    "STATX": (52, 24, 288),
    "COPY_FILE_RANGE_64": (53, 56, 8),
}
UNANSWERED = {"FORGET", "BATCH_FORGET", "INTERRUPT", "NOTIFY_REPLY"}


def test_rows_are_the_header() -> None:
    found = {
        row.name: (row.opcode, row.request.size, row.reply.size if row.reply else None)
        for row in wire.OPS.values()
    }
    assert found == HEADER


def test_what_is_not_answered() -> None:
    assert {row.name for row in wire.OPS.values() if not row.answered} == UNANSWERED


def test_hands_out_nodes() -> None:
    """Answers that count as a lookup."""
    counted = {row.name for row in wire.OPS.values() if row.hands_out}
    assert counted == {"LOOKUP", "SYMLINK", "MKNOD", "MKDIR", "LINK", "CREATE", "TMPFILE"}


def test_refused_are_rows() -> None:
    assert set(REFUSED) <= set(HEADER)


@pytest.mark.parametrize(
    "rows",
    [
        (Op(1, "LOOKUP"), Op(1, "FORGET")),
        (Op(1, "LOOKUP"), Op(2, "LOOKUP")),
        (Op(1, "LOOKUP", Struct("=12s")),),
        (Op(1, "LOOKUP", reply=Struct("=7s")),),
        (Op(1, "FORGET", reply=wire.ENTRY_OUT, answered=False),),
    ],
)
def test_contradictions_are_found(rows: tuple[Op, ...]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wire.table(rows)


def test_init_flags_are_bits() -> None:
    values = [flag.value for flag in wire.Init]
    assert all(value & (value - 1) == 0 for value in values)
    assert len(set(values)) == len(values)
