"""Frozen option records, one per layer of the program.

Options are parsed once, at the edge; nothing below the command line reads the
environment or keeps process-wide flags.
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
    """What `union.Overlay` needs to know; all paths absolute bytes, topmost lower first."""

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
    """What mount(2) or fusermount3 is told."""

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
    """How the daemon runs; the union and the mount table know nothing of it."""

    engine: str = "auto"  # auto | pyfuse3 | native
    data: str = "auto"  # auto | cached | writeback | passthrough
    timeout: float = 86400.0  # seconds the kernel may trust what it was told; 0: layers change underneath
    threads: int = 4  # long copies and fsyncs that may run at once
    poll: int | None = None  # µs to look for the next request before sleeping; None: as it pays
    awake: str = "auto"  # auto | on | off: keep idle processors from halting while it looks
    foreground: bool = False
    debug: bool = False
    run_dir: bytes | None = None  # of the control socket; None: no control socket
    notify: bool = False  # tell systemd (NOTIFY_SOCKET) how it goes
    watchdog: float = 0.0  # seconds between signs of life that systemd waits for; 0: it does not


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """One command line, parsed. `warnings`: one line for each option that was taken but has no effect."""

    union: UnionOptions
    mount: MountOptions
    service: ServiceOptions
    warnings: tuple[str, ...] = ()
