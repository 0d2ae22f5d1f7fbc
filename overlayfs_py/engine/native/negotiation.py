"""INIT: which of the kernel's features this engine uses, and what follows for the session."""

import sys
from dataclasses import dataclass, replace

from overlayfs_py.engine.native import wire
from overlayfs_py.engine.native.readahead import READAHEAD
from overlayfs_py.engine.native.wire import Init

# One request carries at most this many pages, /proc/sys/fs/fuse/max_pages_limit permitting.
MAX_PAGES = 256
MAX_WRITE = MAX_PAGES * wire.PAGE_SIZE
_MAX_BACKGROUND = 64
_CONGESTION = 48

# Not ASYNC_DIO: the kernel keeps pages older than an asynchronous direct write then (decision 0023).
_ALWAYS = (
    Init.ASYNC_READ
    | Init.BIG_WRITES
    | Init.DONT_MASK  # a default ACL overrides the umask, so only the union can apply it
    | Init.HAS_IOCTL_DIR
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.NO_OPENDIR_SUPPORT
    | Init.HANDLE_KILLPRIV_V2  # else the kernel reads security.capability before the first write to each file
    | Init.SETXATTR_EXT
    | Init.INIT_EXT
    | Init.DIRECT_IO_ALLOW_MMAP
    | Init.NO_EXPORT_SUPPORT  # else file handles are exported, which become stale with each forgotten inode
)
_NEEDED = Init.HANDLE_KILLPRIV_V2 | Init.SETXATTR_EXT | Init.MAX_PAGES


class VersionRefused(Exception):
    """The kernel's protocol version is not supported; the text says what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """What the mount requests in INIT. `changing`: layers change underneath, so the kernel must not cache."""

    acl: bool = True
    no_open: bool = True
    passthrough: bool = False
    writeback: bool = False
    changing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Negotiated:
    """The result of INIT."""

    minor: int
    flags: Init
    max_write: int
    reply: bytes

    def has(self, flag: Init) -> bool:
        return bool(self.flags & flag)


def negotiate(
    major: int,
    minor: int,
    max_readahead: int,
    flags: int,
    rest: bytes | memoryview,
    requested: SessionOptions,
) -> Negotiated | None:
    """Return the result of INIT; None for a newer major version, which needs our version in the answer first
    (the kernel then sends INIT again). VersionRefused for a kernel that is too old.
    """
    if major > wire.MAJOR:
        return None
    if major < wire.MAJOR or minor < wire.OLDEST_MINOR:
        raise VersionRefused(f"the kernel has FUSE {major}.{minor}; Linux 5.12 or newer is required")
    offered = flags
    if offered & Init.INIT_EXT and len(rest) >= 4:
        offered |= int.from_bytes(rest[:4], sys.byteorder) << 32
    if offered & _NEEDED != _NEEDED:
        missing = ", ".join(flag.name or "" for flag in _NEEDED if not offered & flag)
        raise VersionRefused(f"the kernel lacks {missing}; Linux 5.12 or newer is required")
    if requested.passthrough and not offered & Init.PASSTHROUGH:
        requested = replace(requested, passthrough=False, no_open=True)
    agreed = Init(_wanted(requested) & offered)
    reply = wire.INIT_OUT.pack(
        wire.MAJOR,
        min(minor, wire.MINOR),
        max(max_readahead, READAHEAD),
        agreed & 0xFFFFFFFF,
        _MAX_BACKGROUND,
        _CONGESTION,
        MAX_WRITE,
        1,  # nanosecond times
        MAX_PAGES,
        0,
        agreed >> 32,
        1 if agreed & Init.PASSTHROUGH else 0,  # max_stack_depth
        0,
    )
    return Negotiated(minor=min(minor, wire.MINOR), flags=agreed, max_write=MAX_WRITE, reply=reply)


def _wanted(requested: SessionOptions) -> Init:
    wanted = _ALWAYS
    if requested.acl:
        wanted |= Init.POSIX_ACL
    wanted |= Init.NO_OPEN_SUPPORT if requested.no_open else Init.ATOMIC_O_TRUNC
    if requested.changing:
        wanted |= Init.AUTO_INVAL_DATA
    else:
        wanted |= Init.EXPLICIT_INVAL_DATA
    if requested.passthrough:
        wanted |= Init.PASSTHROUGH
    if requested.writeback:
        wanted |= Init.WRITEBACK_CACHE
    return wanted
