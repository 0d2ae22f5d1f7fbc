"""Every option that is known, one row each: the parser, the manual's table and the tests read these rows.

An option that is not here is an error. One that is here but can do nothing says so, either by a warning
(what was asked for does no harm) or by an error (leaving it out would break a promise).
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How an option's value is read, and what becomes of it."""

    LOWERS = "colon-separated directories, topmost first; data-only ones after ::"
    DIRECTORY = "one directory"
    FLAG = "no value"
    ONE_OF = "one of a few words"
    INTEGER = "a whole number"
    SECONDS = "seconds"
    TEXT = "any text"
    ID_MAP = "triples LAYER:MOUNT:SIZE"
    SILENT = "accepted: for mount(8) or fstab, or how it is anyway"
    WARNED = "accepted with a warning: has no effect"
    REFUSED = "an error: not available"


class Row(NamedTuple):
    """One option. `target`: the record and field it fills; `values`: what a flag or a word means there."""

    name: str
    kind: Kind
    meaning: str
    target: str = ""
    values: Mapping[str, object] = {}


_ON_OFF = {"on": True, "off": False}


def _flag(name: str, target: str, value: object, meaning: str) -> Row:
    return Row(name, Kind.FLAG, meaning, target, {"": value})


def _words(name: str, target: str, words: str, meaning: str) -> Row:
    return Row(name, Kind.ONE_OF, meaning, target, {word: word for word in words.split()})


LAYERS = (
    Row("lowerdir", Kind.LOWERS, r"the lower directories; \: and \\ escape", "union.lower"),
    Row("lowerdir+", Kind.DIRECTORY, "one more lower directory, below those before it", "union.lower"),
    Row("datadir+", Kind.DIRECTORY, "one more data-only lower directory", "union.data_lower"),
    Row("upperdir", Kind.DIRECTORY, "where changes go; without it the mount is read-only", "union.upper"),
    Row("workdir", Kind.DIRECTORY, "scratch space on the file system of the upper", "union.work"),
)

SEMANTICS = (
    _words("redirect_dir", "union.redirect_dir", "on off follow nofollow", "rename lower directories"),
    Row("metacopy", Kind.ONE_OF, "copy up metadata alone where that is enough", "union.metacopy", _ON_OFF),
    Row(
        "index",
        Kind.ONE_OF,
        "keep hard links whole (default off): only for lowers that stay",
        "union.index",
        _ON_OFF,
    ),
    _words("xino", "union.xino", "on off auto", "whichever: inode numbers are always unique in the mount"),
    _flag("userxattr", "union.userxattr", True, "marks in user.* extended attributes"),
    _flag("volatile", "union.volatile", True, "never sync: after a crash of the machine the upper is lost"),
    Row(
        "fsync",
        Kind.ONE_OF,
        "0 and volatile mean `volatile`, the others mean the default",
        "union.volatile",
        {"0": True, "1": False, "auto": False, "strict": False, "volatile": True},
    ),
    Row(
        "uidmapping",
        Kind.ID_MAP,
        "user ids: the first in the layers, its number in the mount, how many; with 0:1000:1 root's files in "
        "the layers belong to 1000 in the mount, and what 1000 makes there is root's in the upper",
        "union.uid_map",
    ),
    Row("gidmapping", Kind.ID_MAP, "group ids, likewise", "union.gid_map"),
    _flag("squash_to_root", "squash_to_root", True, "everything belongs to 0:0"),
    Row("squash_to_uid", Kind.INTEGER, "everything belongs to this user", "union.squash_uid"),
    Row("squash_to_gid", Kind.INTEGER, "everything belongs to this group", "union.squash_gid"),
    Row(
        "xattr_permissions",
        Kind.ONE_OF,
        "owner and mode in an extended attribute: 1 privileged, 2 containers' override_stat",
        "union.xattr_permissions",
        {"0": 0, "1": 1, "2": 2},
    ),
    _flag("static_nlink", "union.static_nlink", True, "the link count of directories is 1"),
    _flag("noacl", "union.noacl", True, "no POSIX ACLs"),
    _words(
        "aufs",
        "union.aufs",
        "auto on off",
        "AUFS's and OCI's whiteout files in the lowers count; auto: but where an overlay has written",
    ),
)

DAEMON = (
    Row("timeout", Kind.SECONDS, "how long the kernel may cache names and attributes", "service.timeout"),
    _words(
        "engine",
        "service.engine",
        "auto native pyfuse3",
        "how FUSE is spoken; auto: native, before Linux 5.12 pyfuse3 (status says which, and why)",
    ),
    _words(
        "data",
        "service.data",
        "auto cached writeback passthrough",
        "how file contents travel: auto is cached; writeback answers a write before the upper has it, as for "
        "compilers; passthrough is for databases and much data in few files",
    ),
    Row("threads", Kind.INTEGER, "long copies and syncs that may run at once", "service.threads"),
    Row(
        "poll",
        Kind.INTEGER,
        "µs to look for the next request before sleeping; 0: never; else 100, or 500 without awake",
        "service.poll",
    ),
    _words(
        "awake",
        "service.awake",
        "auto on off",
        "idle processors do not halt while requests come; auto: in virtual machines with haltpoll, up to 8",
    ),
    _flag("debug", "service.debug", True, "log every request; stays in the foreground"),
)

MOUNT = (
    _flag("ro", "mount.read_only", True, "read-only"),
    _flag("rw", "mount.read_only", False, "writable (when there is an upper)"),
    _flag("suid", "mount.nosuid", False, "set-user-ID bits count"),
    _flag("nosuid", "mount.nosuid", True, "set-user-ID bits do not count"),
    _flag("dev", "mount.nodev", False, "device files work"),
    _flag("nodev", "mount.nodev", True, "device files do not work"),
    _flag("exec", "mount.noexec", False, "programs may be run"),
    _flag("noexec", "mount.noexec", True, "programs may not be run"),
    _flag("atime", "mount.noatime", False, "access times are kept as the layers keep them"),
    _flag("noatime", "mount.noatime", True, "reading updates no access time"),
    _flag("remount", "remount", True, "give a live mount the flags above; other options must be as they are"),
    _flag("allow_other", "mount.allow_other", True, "other users may use the mount"),
    _flag("allow_root", "mount.allow_root", True, "root may use a user's mount"),
    Row("fsname", Kind.TEXT, "the mount's source, as mount(8) lists it", "mount.fsname"),
    Row("subtype", Kind.TEXT, "the mount's type after fuse.", "mount.subtype"),
)


def _rows(kind: Kind, meaning: str, names: str) -> tuple[Row, ...]:
    return tuple(Row(name, kind, meaning) for name in names.split())


WITHOUT_EFFECT = (
    *_rows(Kind.SILENT, "for mount(8), fstab and systemd", "auto noauto user nouser users owner group"),
    *_rows(Kind.SILENT, "for mount(8), fstab and systemd", "nofail _netdev defaults comment"),
    *_rows(Kind.SILENT, "how it is anyway", "default_permissions async relatime norelatime diratime loud"),
    *_rows(Kind.SILENT, "how it is anyway", "silent nolazytime nostrictatime nomand noiversion symfollow"),
    *_rows(Kind.WARNED, "caching is set by timeout=", "kernel_cache auto_cache noforget"),
    Row("writeback", Kind.WARNED, "see data=writeback"),
    *_rows(Kind.WARNED, "always so here", "big_writes use_ino readdir_ino nonempty hard_remove intr"),
    *_rows(Kind.WARNED, "there is one event loop; see threads=", "threaded clone_fd max_threads"),
    *_rows(Kind.WARNED, "there is one event loop; see threads=", "max_idle_threads"),
    *_rows(Kind.WARNED, "fuse-overlayfs's own tuning", "fast_ino noxattrs"),
    *_rows(Kind.WARNED, "the layers' file systems keep access times", "strictatime lazytime nodiratime"),
    *_rows(Kind.WARNED, "propagation follows the parent mount", "private rprivate shared rshared"),
    *_rows(Kind.WARNED, "propagation follows the parent mount", "slave rslave unbindable runbindable"),
)

UNSUPPORTED = (
    *_rows(Kind.REFUSED, "fuse-overlayfs plugins are not supported", "plugins"),
    *_rows(Kind.REFUSED, "SELinux labels are not supported", "context fscontext defcontext rootcontext"),
    *_rows(Kind.REFUSED, "layers are read with the mounter's rights", "override_creds nooverride_creds"),
    *_rows(Kind.REFUSED, "mount and the kernel do it, not the overlay", "bind rbind move"),
    *_rows(Kind.REFUSED, "writes are synchronous where O_SYNC or fsync asks for it", "sync dirsync"),
    *_rows(Kind.REFUSED, "a killed daemon leaves its mount, the next start clears it", "auto_unmount"),
    *_rows(Kind.REFUSED, "this overlay cannot do it", "mand iversion nosymfollow direct_io blkdev"),
    *_rows(Kind.REFUSED, "this overlay cannot do it", "nfs_filehandles max_read"),
    Row("nfs_export", Kind.ONE_OF, "only off: file handles are not supported", "", {"off": False}),
    Row("verity", Kind.ONE_OF, "only off: fs-verity digests are not checked", "", {"off": False}),
    Row("uuid", Kind.ONE_OF, "only auto", "", {"auto": "auto"}),
)

GROUPS = {
    "Layers": LAYERS,
    "Semantics": SEMANTICS,
    "Daemon": DAEMON,
    "Mount": MOUNT,
    "Without effect": WITHOUT_EFFECT,
    "Not supported": UNSUPPORTED,
}
ROWS: dict[str, Row] = {row.name: row for rows in GROUPS.values() for row in rows}
# fstab's own words, of which each program takes what it knows: mount(8) hands them all on.
SILENT_PREFIXES = ("x-", "X-")
