"""The FUSE kernel protocol as data: flags, structures, and one row for each opcode.

Dispatch, debug printing and tests read these rows; nothing here does I/O or knows what a filesystem is.
Layouts are those of <linux/fuse.h> up to version 7.45, in the byte order of the machine.
"""

from dataclasses import dataclass, field
from enum import IntFlag
from struct import Struct

MAJOR, MINOR = 7, 45
OLDEST_MINOR = 33  # Linux 5.12, the first with HANDLE_KILLPRIV_V2 and SETXATTR_EXT
ROOT_ID = 1
PAGE_SIZE = 4096
DIRENT_ALIGNMENT = 8


class Init(IntFlag):
    """INIT flags; those from bit 32 on travel in flags2."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# SETATTR: which fields count.
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_CTIME = 1 << 10
FATTR_KILL_SUIDGID = 1 << 11

# OPEN and CREATE replies.
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_NOFLUSH = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
FOPEN_PASSTHROUGH = 1 << 7

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800

OPEN_KILL_SUIDGID = 1 << 0
WRITE_CACHE = 1 << 0  # written back from the page cache, with no particular writer
WRITE_KILL_SUIDGID = 1 << 2
FSYNC_DATA_ONLY = 1 << 0
SETXATTR_ACL_KILL_SGID = 1 << 0
IOCTL_DIR = 1 << 4

NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3
NOTIFY_STORE = 4
NOTIFY_DELETE = 6
NOTIFY_RESEND = 7

_ATTR = "QQQqqqIIIIIIIIII"  # ino size blocks, times, their nanoseconds, mode nlink uid gid rdev blksize flags
_TIME = "qIi"

IN_HEADER = Struct("=IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("=IiQ")  # len error unique; in a notification unique is 0 and error its code
FORGET_ONE = Struct("=QQ")

ATTR = Struct("=" + _ATTR)
ENTRY_HEAD = Struct("=QQQQII")  # nodeid generation entry_valid attr_valid, their nanoseconds
ENTRY_OUT = Struct(ENTRY_HEAD.format + _ATTR)
ATTR_HEAD = Struct("=QII")
ATTR_OUT = Struct(ATTR_HEAD.format + _ATTR)
OPEN_OUT = Struct("=QIi")  # fh open_flags backing_id
WRITE_OUT = Struct("=II")
STATFS_OUT = Struct("=QQQQQIIII24x")
XATTR_SIZE_OUT = Struct("=II")
INIT_OUT = Struct("=IIIIHHIIHHIIH22x")
LSEEK_OUT = Struct("=Q")
COPY_RANGE_OUT = Struct("=Q")
POLL_OUT = Struct("=II")
IOCTL_OUT = Struct("=iIII")
STATX_OUT = Struct("=QII16x" + "IIQIIIHHQQQQ" + _TIME * 4 + "IIII112x")
DIRENT = Struct("=QQII")  # ino off namelen type
DIRENT_PLUS = Struct(ENTRY_OUT.format + "QQII")
INVAL_INODE_OUT = Struct("=Qqq")
INVAL_ENTRY_OUT = Struct("=QII")
DELETE_OUT = Struct("=QQII")

_NOTHING = Struct("=")


@dataclass(frozen=True, slots=True)
class Op:
    """One opcode. `request`: the fixed part; then `names`, then `text`: strings that end with a NUL.

    `payload`: what follows to the end. `reply`: the fixed part of a successful answer, None for plain bytes
    or nothing. `answered` is False for messages that must not be answered. The dispatcher's method `handler`
    handles it.
    """

    opcode: int
    name: str
    request: Struct = _NOTHING
    names: int = 0  # of directory entries
    text: bool = False  # a link's target, an xattr's name
    payload: bool = False
    reply: Struct | None = None
    answered: bool = True

    strings: int = field(init=False)  # how many strings there are: names and text
    strings_at: int = field(init=False)  # where they begin in the message

    def __post_init__(self) -> None:
        object.__setattr__(self, "strings", self.names + self.text)
        object.__setattr__(self, "strings_at", IN_HEADER.size + self.request.size)

    @property
    def hands_out(self) -> bool:
        """Whether a successful answer begins with an entry, which counts as a lookup of its node."""
        return self.reply is not None and self.reply.size >= ENTRY_OUT.size and self.name != "STATX"

    @property
    def arity(self) -> int:
        """How many arguments a message has: fields of the fixed part, strings, payload."""
        fields = self.request.unpack(bytes(self.request.size))
        return len(fields) + self.strings + self.payload

    @property
    def handler(self) -> str:
        return self.name.lower()


def _rows() -> tuple[Op, ...]:
    # Offsets and sizes are signed like the kernel's loff_t; for a negative one the layer returns the errno.
    read_write = Struct("=QqIIQI4x")  # fh offset size flags lock_owner open_flags
    lock = Struct("=QQQQIII4x")
    release = Struct("=QIIQ")
    copy_range = Struct("=QqQQqQQ")
    return (
        Op(1, "LOOKUP", names=1, reply=ENTRY_OUT),
        Op(2, "FORGET", Struct("=Q"), answered=False),
        Op(3, "GETATTR", Struct("=I4xQ"), reply=ATTR_OUT),
        Op(4, "SETATTR", Struct("=I4xQqQqqqIIII4xII4x"), reply=ATTR_OUT),
        Op(5, "READLINK"),
        Op(6, "SYMLINK", names=1, text=True, reply=ENTRY_OUT),
        Op(8, "MKNOD", Struct("=III4x"), names=1, reply=ENTRY_OUT),
        Op(9, "MKDIR", Struct("=II"), names=1, reply=ENTRY_OUT),
        Op(10, "UNLINK", names=1),
        Op(11, "RMDIR", names=1),
        Op(12, "RENAME", Struct("=Q"), names=2),
        Op(13, "LINK", Struct("=Q"), names=1, reply=ENTRY_OUT),
        Op(14, "OPEN", Struct("=II"), reply=OPEN_OUT),
        Op(15, "READ", read_write),
        Op(16, "WRITE", read_write, payload=True, reply=WRITE_OUT),
        Op(17, "STATFS", reply=STATFS_OUT),
        Op(18, "RELEASE", release),
        Op(20, "FSYNC", Struct("=QI4x")),
        Op(21, "SETXATTR", Struct("=IiI4x"), text=True, payload=True),
        Op(22, "GETXATTR", Struct("=I4x"), text=True),
        Op(23, "LISTXATTR", Struct("=I4x")),
        Op(24, "REMOVEXATTR", text=True),
        Op(25, "FLUSH", Struct("=Q8xQ")),
        Op(26, "INIT", Struct("=IIII"), payload=True, reply=INIT_OUT),  # flags2 follows since 7.36
        Op(27, "OPENDIR", Struct("=II"), reply=OPEN_OUT),
        Op(28, "READDIR", read_write),
        Op(29, "RELEASEDIR", release),
        Op(30, "FSYNCDIR", Struct("=QI4x")),
        Op(31, "GETLK", lock),
        Op(32, "SETLK", lock),
        Op(33, "SETLKW", lock),
        Op(34, "ACCESS", Struct("=I4x")),
        Op(35, "CREATE", Struct("=IIII"), names=1, reply=Struct(ENTRY_OUT.format + "QIi")),
        Op(36, "INTERRUPT", Struct("=Q"), answered=False),
        Op(37, "BMAP", Struct("=QI4x")),
        Op(38, "DESTROY"),
        Op(39, "IOCTL", Struct("=QIIQII"), payload=True, reply=IOCTL_OUT),
        Op(40, "POLL", Struct("=QQII"), reply=POLL_OUT),
        Op(41, "NOTIFY_REPLY", payload=True, answered=False),
        Op(42, "BATCH_FORGET", Struct("=I4x"), payload=True, answered=False),
        Op(43, "FALLOCATE", Struct("=Qqqi4x")),
        Op(44, "READDIRPLUS", read_write),
        Op(45, "RENAME2", Struct("=QI4x"), names=2),
        Op(46, "LSEEK", Struct("=Qqi4x"), reply=LSEEK_OUT),
        Op(47, "COPY_FILE_RANGE", copy_range, reply=WRITE_OUT),
        Op(50, "SYNCFS", Struct("=8x")),
        Op(51, "TMPFILE", Struct("=IIII"), text=True, reply=Struct(ENTRY_OUT.format + "QIi")),
        Op(52, "STATX", Struct("=I4xQII"), reply=STATX_OUT),
        Op(53, "COPY_FILE_RANGE_64", copy_range, reply=COPY_RANGE_OUT),
    )


def table(rows: tuple[Op, ...]) -> dict[int, Op]:
    """Return the rows by opcode; ValueError when they contradict each other."""
    found = {row.opcode: row for row in rows}
    if len(found) != len(rows) or len({row.name for row in rows}) != len(rows):
        raise ValueError("two rows have the same opcode or name")
    for row in rows:
        if row.request.size % 8 and row.request.size not in (0, 4):
            raise ValueError(f"{row.name}: requests are padded to 8 bytes")
        if row.reply is not None and (row.reply.size % 8 or not row.answered):
            raise ValueError(f"{row.name}: its reply is not what the kernel reads")
    return found


OPS = table(_rows())
# The sizes in <linux/fuse.h>, so that an error in a format string never reaches the kernel.
_SIZES = {
    IN_HEADER: 40,
    OUT_HEADER: 16,
    ENTRY_OUT: 128,
    ATTR_OUT: 104,
    OPEN_OUT: 16,
    STATFS_OUT: 80,
    INIT_OUT: 64,
    STATX_OUT: 288,
    DIRENT: 24,
    DIRENT_PLUS: 152,
    OPS[4].request: 88,
    OPS[15].request: 40,
    OPS[31].request: 48,
    OPS[39].request: 32,
    OPS[47].request: 56,
}
for _struct, _size in _SIZES.items():
    if _struct.size != _size:
        raise ValueError(f"{_struct.format} has {_struct.size} bytes where the kernel has {_size}")
