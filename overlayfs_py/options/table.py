"""Every known mount option, one row each; the parser, the manual and the tests read these rows.

An option that is not here is an error. An option without effect here gets a warning when ignoring it does no
harm, and is an error when ignoring it would break a promise.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """How the parser reads an option's value, and what it does with the option."""

    LOWERS = "colon-separated directories, topmost first; data-only ones after ::"
    DIRECTORY = "one directory"
    FLAG = "no value"
    ONE_OF = "one of a few words"
    INTEGER = "a whole number"
    SECONDS = "seconds"
    TEXT = "any text"
    ID_MAP = "triples LAYER:MOUNT:SIZE"
    SILENT = "accepted: for mount(8) or fstab, or what happens anyway"
    WARNED = "accepted with a warning: has no effect"
    REFUSED = "an error: not available"


class Row(NamedTuple):
    """One option. `target`: the record and field that it sets; `values`: the value for each word."""

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
    Row("lowerdir+", Kind.DIRECTORY, "one more lower directory, below those named before it", "union.lower"),
    Row("datadir+", Kind.DIRECTORY, "one more data-only lower directory", "union.data_lower"),
    Row(
        "upperdir",
        Kind.DIRECTORY,
        "the directory that receives changes; without it the mount is read-only",
        "union.upper",
    ),
    Row("workdir", Kind.DIRECTORY, "a scratch directory on the file system of the upper", "union.work"),
)

SEMANTICS = (
    _words(
        "redirect_dir", "union.redirect_dir", "on off follow nofollow", "allow renames of lower directories"
    ),
    Row("metacopy", Kind.ONE_OF, "copy up only the metadata where that is enough", "union.metacopy", _ON_OFF),
    Row(
        "index",
        Kind.ONE_OF,
        "keep hard links intact after copy-up (default off); only for lowers that never change",
        "union.index",
        _ON_OFF,
    ),
    _words(
        "xino", "union.xino", "on off auto", "no difference: inode numbers are always unique in the mount"
    ),
    _flag("userxattr", "union.userxattr", True, "store overlay marks in user.* extended attributes"),
    _flag("volatile", "union.volatile", True, "never sync; a crash of the machine makes the upper unusable"),
    Row(
        "fsync",
        Kind.ONE_OF,
        "0 and volatile mean the option `volatile`; the others mean the default",
        "union.volatile",
        {"0": True, "1": False, "auto": False, "strict": False, "volatile": True},
    ),
    Row(
        "uidmapping",
        Kind.ID_MAP,
        "map user ids: first id in the layers, first id in the mount, count; 0:1000:1 shows root's files of "
        "the layers as 1000's, and stores files that 1000 creates as root's",
        "union.uid_map",
    ),
    Row("gidmapping", Kind.ID_MAP, "map group ids in the same way", "union.gid_map"),
    _flag("squash_to_root", "squash_to_root", True, "show 0:0 as the owner of everything"),
    Row("squash_to_uid", Kind.INTEGER, "show this user as the owner of everything", "union.squash_uid"),
    Row("squash_to_gid", Kind.INTEGER, "show this group as the group of everything", "union.squash_gid"),
    Row(
        "xattr_permissions",
        Kind.ONE_OF,
        "store owner and mode in an extended attribute: 1 a privileged one, 2 containers' override_stat",
        "union.xattr_permissions",
        {"0": 0, "1": 1, "2": 2},
    ),
    _flag("static_nlink", "union.static_nlink", True, "show a link count of 1 for directories"),
    _flag("noacl", "union.noacl", True, "disable POSIX ACLs"),
    _words(
        "aufs",
        "union.aufs",
        "auto on off",
        "honour AUFS and OCI whiteout files in lowers; auto: not in directories that an overlay has written",
    ),
)

DAEMON = (
    Row("timeout", Kind.SECONDS, "how long the kernel may cache names and attributes", "service.timeout"),
    _words(
        "engine",
        "service.engine",
        "auto native pyfuse3",
        "the FUSE engine; auto: native, or pyfuse3 before Linux 5.12 (`overlayfs-pyctl status` shows which)",
    ),
    _words(
        "data",
        "service.data",
        "auto cached writeback passthrough",
        "the data path: auto is cached; writeback answers a write before the upper has the data, which suits "
        "compilers; passthrough suits databases and large files",
    ),
    Row("threads", Kind.INTEGER, "how many long copies and syncs may run at once", "service.threads"),
    Row(
        "poll",
        Kind.INTEGER,
        "µs to poll for the next request before sleeping; 0: never; default 100, or 500 without awake",
        "service.poll",
    ),
    _words(
        "awake",
        "service.awake",
        "auto on off",
        "keep idle processors from halting while requests arrive; auto: in virtual machines with haltpoll "
        "and up to 8 processors",
    ),
    _flag("debug", "service.debug", True, "log every request and stay in the foreground"),
)

MOUNT = (
    _flag("ro", "mount.read_only", True, "read-only"),
    _flag("rw", "mount.read_only", False, "writable, if there is an upper"),
    _flag("suid", "mount.nosuid", False, "honour set-user-ID bits"),
    _flag("nosuid", "mount.nosuid", True, "ignore set-user-ID bits"),
    _flag("dev", "mount.nodev", False, "allow device files"),
    _flag("nodev", "mount.nodev", True, "disable device files"),
    _flag("exec", "mount.noexec", False, "allow programs to run"),
    _flag("noexec", "mount.noexec", True, "do not allow programs to run"),
    _flag("atime", "mount.noatime", False, "update access times as the layers' file systems do"),
    _flag("noatime", "mount.noatime", True, "do not update access times"),
    _flag(
        "remount",
        "remount",
        True,
        "give a live mount the flags above; all other options must stay as they are",
    ),
    _flag("allow_other", "mount.allow_other", True, "let other users use the mount"),
    _flag("allow_root", "mount.allow_root", True, "let root use a user's mount"),
    Row("fsname", Kind.TEXT, "the source that mount(8) lists", "mount.fsname"),
    Row("subtype", Kind.TEXT, 'the type that mount(8) lists after "fuse."', "mount.subtype"),
)


def _rows(kind: Kind, meaning: str, names: str) -> tuple[Row, ...]:
    return tuple(Row(name, kind, meaning) for name in names.split())


WITHOUT_EFFECT = (
    *_rows(Kind.SILENT, "for mount(8), fstab and systemd", "auto noauto user nouser users owner group"),
    *_rows(Kind.SILENT, "for mount(8), fstab and systemd", "nofail _netdev defaults comment"),
    *_rows(Kind.SILENT, "what happens anyway", "default_permissions async relatime norelatime diratime loud"),
    *_rows(Kind.SILENT, "what happens anyway", "silent nolazytime nostrictatime nomand noiversion symfollow"),
    *_rows(Kind.WARNED, "use timeout= for caching", "kernel_cache auto_cache noforget"),
    Row("writeback", Kind.WARNED, "use data=writeback"),
    *_rows(Kind.WARNED, "always on", "big_writes use_ino readdir_ino nonempty hard_remove intr"),
    *_rows(Kind.WARNED, "requests run in one event loop; see threads=", "threaded clone_fd max_threads"),
    *_rows(Kind.WARNED, "requests run in one event loop; see threads=", "max_idle_threads"),
    *_rows(Kind.WARNED, "only tunes fuse-overlayfs", "fast_ino noxattrs"),
    *_rows(Kind.WARNED, "the layers' file systems decide on access times", "strictatime lazytime nodiratime"),
    *_rows(Kind.WARNED, "propagation follows the parent mount", "private rprivate shared rshared"),
    *_rows(Kind.WARNED, "propagation follows the parent mount", "slave rslave unbindable runbindable"),
)

UNSUPPORTED = (
    *_rows(Kind.REFUSED, "fuse-overlayfs plugins are not supported", "plugins"),
    *_rows(Kind.REFUSED, "SELinux labels are not supported", "context fscontext defcontext rootcontext"),
    *_rows(
        Kind.REFUSED, "layers are always read with the mounter's rights", "override_creds nooverride_creds"
    ),
    *_rows(Kind.REFUSED, "mount and the kernel do this, not the overlay", "bind rbind move"),
    *_rows(Kind.REFUSED, "use O_SYNC or fsync for synchronous writes", "sync dirsync"),
    *_rows(Kind.REFUSED, "a killed daemon leaves a dead mount, which the next start clears", "auto_unmount"),
    *_rows(Kind.REFUSED, "not supported by this overlay", "mand iversion nosymfollow direct_io blkdev"),
    *_rows(Kind.REFUSED, "not supported by this overlay", "nfs_filehandles max_read"),
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
# Prefixes of fstab's options for other programs; mount(8) passes all of them on.
SILENT_PREFIXES = ("x-", "X-")
