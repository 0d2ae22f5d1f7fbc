"""Mount and unmount FUSE filesystems, and read the mount table.

Uses mount(2) and umount(2) if this process may, fusermount3 otherwise. Only `is_stale` and the check of the
mount point send requests to the mounted filesystem, so that a dead mount does not hang the caller.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overlayfs_py.errors import MountError, shown
from overlayfs_py.syscalls import _fusermount
from overlayfs_py.syscalls._libc import check, function
from overlayfs_py.syscalls.privileges import CAP_SYS_ADMIN, has_capability

if TYPE_CHECKING:  # reading the mount table needs no options
    from overlayfs_py.options import MountOptions

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_RELATIME = 1 << 21
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
# With it FUSE leaves the umask to the filesystem, since a default ACL overrides the umask.
MS_POSIXACL = 1 << 16

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OWN_TYPE = b"fuse.overlayfs-py"  # unless subtype= is set

_DEVICE = "/dev/fuse"
_SEPARATOR, _ESCAPED = r"([,\\])", r"\\\1"  # special characters in fusermount3's option values

_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, kw_only=True, slots=True)
class MountRecord:
    """One line of /proc/self/mountinfo, with the kernel's octal escapes undone."""

    mount_id: int
    parent_id: int
    device: int  # st_dev of the filesystem
    root: bytes  # the mounted part of the filesystem: b"/" except for bind mounts
    mountpoint: bytes
    options: tuple[bytes, ...]  # of this mount: rw, nosuid, noatime ...
    fstype: bytes  # fuse.SUBTYPE
    source: bytes  # fsname
    super_options: tuple[bytes, ...]  # of the filesystem: rw, user_id=0, allow_other ...


def mount_fuse(options: MountOptions) -> int:
    """Mount a FUSE filesystem that no daemon serves yet; the caller owns the /dev/fuse descriptor.

    The first message on it is FUSE_INIT. Until it is answered, every use of the mount point waits; when the
    last copy of the descriptor is closed, the mount stays but is dead (ENOTCONN). The kernel always checks
    access (default_permissions), and all users may use root's mounts unless only `allow_root` is set.
    MountError names the mount point.
    """
    _check_mountpoint(options.mountpoint)
    refusal: OSError | None = None
    if _may_mount():
        try:
            return _mount_directly(options)
        except PermissionError as error:  # a container, a user namespace: perhaps fusermount3 may
            refusal = error
        except OSError as error:
            raise _mount_error(options.mountpoint, _explain(error)) from error
    if options.allow_root and not options.allow_other:
        raise _mount_error(options.mountpoint, "allow_root needs a mount by root; use allow_other")
    try:
        return _fusermount.mount(options.mountpoint, _fusermount_options(options))
    except _fusermount.FusermountMissing as error:
        raise _mount_error(options.mountpoint, _explain(refusal) if refusal else str(error)) from error
    except _fusermount.FusermountFailed as error:
        raise _mount_error(options.mountpoint, str(error)) from error


def remount(mountpoint: bytes, flags: int) -> None:
    """Set the flags of the mount at `mountpoint` (MS_RDONLY also its filesystem's); those for access times
    stay if none is given.

    The kernel writes back all cached data, so the daemon must answer. MountError gives the reason without the
    mount point.
    """
    try:
        check(_mount(None, _canonical(mountpoint), None, MS_REMOUNT | flags, None))
    except OSError as error:
        raise MountError(_why_not_remounted(error)) from error


def keep_changes_here() -> None:
    """Make all mounts of this mount namespace private, so that unmounting here has no effect elsewhere.

    OSError when this process may not.
    """
    check(_mount(None, b"/", None, MS_REC | MS_PRIVATE, None))


def unmount(mountpoint: bytes, *, lazy: bool = False, abort: bool = False) -> None:
    """Unmount the topmost mount at `mountpoint`, even a dead one; `lazy` detaches it while it is in use.

    `abort` aborts the connection first, so that processes waiting for a dead daemon get an error (if this
    process may use umount(2)). MountError when nothing is mounted there or it is busy. The daemon may run for
    a moment afterwards.
    """
    path = _canonical(mountpoint)
    refusal: OSError | None = None
    if _may_mount():
        try:
            flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if abort else 0)
            check(_umount2(path, UMOUNT_NOFOLLOW | flags))
            return
        except PermissionError as error:
            refusal = error
        except OSError as error:
            raise _unmount_error(mountpoint, _why_not_unmounted(error)) from error
    try:
        _fusermount.unmount(path, lazy=lazy)
    except _fusermount.FusermountMissing as error:
        raise _unmount_error(mountpoint, _explain(refusal) if refusal else str(error)) from error
    except _fusermount.FusermountFailed as error:
        raise _unmount_error(mountpoint, str(error)) from error


def mounted_filesystem(mountpoint: bytes) -> MountRecord | None:
    """Return the topmost mount at exactly `mountpoint`, dead or alive; None: no mount, or no such path."""
    path = _canonical(mountpoint)
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)  # sends no request to the filesystem
    except OSError:
        return None
    try:  # the descriptor keeps the mount, so that its id stays valid
        mount_id = _mount_id(fd)
        found = [record for record in mount_table() if record.mount_id == mount_id]
    finally:
        os.close(fd)
    return found[0] if found and found[0].mountpoint == path else None


def mount_table() -> list[MountRecord]:
    """Return all mounts of this mount namespace that are reachable from the root directory."""
    return parse_mount_table("/proc/self/mountinfo")


def parse_mount_table(path: str) -> list[MountRecord]:
    """Return the mounts in a ``mountinfo`` file."""
    with open(path, "rb") as table:
        return [_parse_mountinfo(line) for line in table]


def is_stale(mountpoint: bytes) -> bool:
    """Whether `mountpoint` is a FUSE mount whose daemon has exited.

    Checks with statfs, which the kernel never caches, unlike stat.
    """
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _check_mountpoint(mountpoint: bytes) -> None:
    try:
        found = os.stat(mountpoint)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            text = "a dead FUSE mount is there (its daemon has exited): unmount it first"
            raise _mount_error(mountpoint, text) from error
        raise _mount_error(mountpoint, _explain(error)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _mount_error(mountpoint, "it is not a directory")


def _may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN, at least in its user namespace."""
    try:
        return has_capability(CAP_SYS_ADMIN)
    except FileNotFoundError:  # no /proc
        return os.geteuid() == 0


def _mount_directly(options: MountOptions) -> int:
    fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions"
    if (
        options.allow_other or not options.allow_root
    ):  # here the mount's owner is root, so allow_root alone needs no option
        data += ",allow_other"
    flags = MS_POSIXACL
    for flag, wanted in (
        (MS_RDONLY, options.read_only),
        (MS_NOSUID, options.nosuid),
        (MS_NODEV, options.nodev),
        (MS_NOEXEC, options.noexec),
        (MS_NOATIME, options.noatime),
    ):
        flags |= flag if wanted else 0
    source, fstype = os.fsencode(options.fsname), os.fsencode(f"fuse.{options.subtype}")
    try:
        check(_mount(source, options.mountpoint, fstype, flags, data.encode()))
    except OSError:
        os.close(fd)
        raise
    return fd


def _fusermount_options(options: MountOptions) -> bytes:
    """The option string of fusermount3, which adds nosuid and nodev for ordinary users itself."""
    words = ["ro" if options.read_only else "rw", "default_permissions"]
    words += [
        name for name in ("nosuid", "nodev", "noexec", "noatime", "allow_other") if getattr(options, name)
    ]
    for name, value in (("fsname", options.fsname), ("subtype", options.subtype)):
        words.append(f"{name}={re.sub(_SEPARATOR, _ESCAPED, value)}")
    return os.fsencode(",".join(words))


def _canonical(mountpoint: bytes) -> bytes:
    """Return `mountpoint` without symbolic links, without a request to the filesystem mounted there."""
    path = mountpoint
    for _ in range(40):
        head, tail = os.path.split(path.rstrip(b"/"))
        if tail in (b"", b".", b".."):
            return os.path.realpath(path)
        path = os.path.join(os.path.realpath(head or b"."), tail)
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:  # no symbolic link, or nothing at all
            break
    return path


def _mount_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel does not provide mount ids")


def _parse_mountinfo(line: bytes) -> MountRecord:
    # proc_pid_mountinfo(5): 36 35 98:0 /root /mountpoint rw,noatime master:1 - ext4 source rw,errors=continue
    mount, _, filesystem = line.rstrip(b"\n").partition(b" - ")
    mount_id, parent_id, device, root, mountpoint, options = mount.split(b" ")[:6]
    fstype, source, super_options = filesystem.split(b" ", 2)
    major, minor = device.split(b":")
    return MountRecord(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=os.makedev(int(major), int(minor)),
        root=_unescape(root),
        mountpoint=_unescape(mountpoint),
        options=tuple(options.split(b",")),
        fstype=_unescape(fstype),
        source=_unescape(source),
        super_options=tuple(super_options.split(b",")),
    )


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def _explain(error: OSError) -> str:
    if error.filename == _DEVICE and error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{_DEVICE} does not exist (is the kernel module fuse loaded?)"
    if error.filename == _DEVICE:
        return f"{_DEVICE}: {error.strerror}"
    return error.strerror or str(error)


def _why_not_unmounted(error: OSError) -> str:
    if error.errno == errno.EINVAL:
        return "nothing is mounted there"
    if error.errno == errno.EBUSY:
        return "it is in use (open files, current directories): end that, or unmount it lazily"
    return _explain(error)


def _why_not_remounted(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"{error.strerror}: files are open for writing there"
    if error.errno == errno.EPERM:
        return f"{error.strerror}: only root may; as another user unmount it and mount it again"
    return _explain(error)


def _mount_error(mountpoint: bytes, text: str) -> MountError:
    return MountError(f"cannot mount on {shown(mountpoint)}: {text}")


def _unmount_error(mountpoint: bytes, text: str) -> MountError:
    return MountError(f"cannot unmount {shown(mountpoint)}: {text}")
