"""Frozen option records, one for each room of the program.

Options are parsed once, at the edge: below the command line nothing reads the environment or keeps
process-wide flags.
"""

from dataclasses import dataclass
from typing import NamedTuple


class IdRange(NamedTuple):
    """`size` ids: those from `in_mount` on are stored in the layers from `in_layer` on."""

    in_mount: int
    in_layer: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UnionOptions:
    """Options of `union.Overlay`; all paths are absolute bytes, the topmost lower is first."""

    lower: tuple[bytes, ...]
    data_lower: tuple[bytes, ...] = ()
    upper: bytes | None = None
    work: bytes | None = None
    redirect_dir: str = "off"  # on | off | follow | nofollow
    metacopy: bool = False
    index: bool = False
    xino: str = "auto"  # on | off | auto
    userxattr: bool = False
    volatile: bool = False
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    squash_uid: int | None = None
    squash_gid: int | None = None
    xattr_permissions: int = 0
    static_nlink: bool = False
    noacl: bool = False
    aufs: str = "auto"  # on | off | auto


@dataclass(frozen=True, kw_only=True, slots=True)
class MountOptions:
    """Options for mount(2) or fusermount3."""

    mountpoint: bytes
    fsname: str = "overlayfs-py"
    subtype: str = "overlayfs-py"
    read_only: bool = False
    nosuid: bool = False
    nodev: bool = False
    noexec: bool = False
    noatime: bool = False
    allow_other: bool = False
    allow_root: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceOptions:
    """How the daemon runs; neither the union nor the mount table sees these."""

    engine: str = "auto"  # auto | pyfuse3 | native
    data: str = "auto"  # auto | cached | writeback | passthrough
    timeout: float = 86400.0  # seconds that the kernel may cache answers; 0: layers change underneath
    threads: int = 4  # long copies and fsyncs that may run at once
    poll: int | None = None  # µs to poll for the next request before sleeping; None: the default
    awake: str = "auto"  # auto | on | off: keep idle processors from halting between requests
    foreground: bool = False
    debug: bool = False
    run_dir: bytes | None = None  # of the control socket; None: no control socket
    notify: bool = False  # report to systemd (NOTIFY_SOCKET)
    watchdog: float = 0.0  # seconds within which systemd expects a sign of life; 0: never


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """One command line, parsed. `warnings`: a line for each accepted option that has no effect."""

    union: UnionOptions
    mount: MountOptions
    service: ServiceOptions
    warnings: tuple[str, ...] = ()
