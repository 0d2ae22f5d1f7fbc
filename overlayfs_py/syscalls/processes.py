"""What /proc says of other processes: whether they live, which mounts they see, what they have open.

Nothing here asks a file system that is mounted, so that no dead or stopped FUSE daemon hangs it. Of processes
of other users it may learn nothing: they are passed over.
"""

import ctypes
import os
import re
import select
import signal
from collections.abc import Iterator
from contextlib import suppress

from overlayfs_py.syscalls._libc import check, system_call
from overlayfs_py.syscalls.mount import MountRecord, parse_mount_table
from overlayfs_py.syscalls.statx import device_unasked

_FUSE = "/dev/fuse"
_pidfd_getfd = system_call(438, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_CONNECTION = re.compile(rb"^fuse_connection:\s*(\d+)$", re.MULTILINE)
_PENDING = re.compile(rb"^ShdPnd:\s*([0-9a-f]+)$", re.MULTILINE)
_FLOCK = re.compile(rb": FLOCK +ADVISORY +WRITE (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")


def pids() -> list[int]:
    """Every process that is seen from here, oldest numbers first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def state_of(pid: int) -> str:
    """R, S, D, T, Z ... as ps(1) has it; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return chr(file.read().rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped it."""
    return state_of(pid) in ("T", "t")


def is_ending(pid: int) -> bool:
    """Whether it has ended, or SIGKILL has been sent to it."""
    if state_of(pid) in ("", "Z", "X"):
        return True
    found = _PENDING.search(_read(f"/proc/{pid}/status"))
    return found is not None and bool(int(found[1], 16) >> (signal.SIGKILL - 1) & 1)


def parent_of(pid: int) -> int:
    """The process that started it, or has inherited it; 0 when it has ended."""
    words = _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def command_of(pid: int) -> str:
    """The name of its program, as ps(1) shows it."""
    return os.fsdecode(_read(f"/proc/{pid}/comm")).rstrip("\n") or "?"


def words_of(pid: int) -> list[bytes]:
    """Its command line; empty when it has ended."""
    return _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]


def wait_readable(fd: int, seconds: float | None) -> bool:
    """Whether `fd` is readable (a pidfd: its process has ended) within that time; None: without limit."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else round(seconds * 1000)))


def mount_namespace(pid: int | str, thread: int | None = None) -> int | None:
    """The number of its mount namespace; None when it has ended, or when this process may not know."""
    task = f"/task/{thread}" if thread is not None else ""
    try:
        return os.stat(f"/proc/{pid}{task}/ns/mnt").st_ino
    except OSError:
        return None


def root_of(pid: int) -> str:
    """Where its root directory is."""
    return _target(f"/proc/{pid}/root")


def mounts_of(pid: int) -> list[MountRecord]:
    """The mounts that it can reach from its root directory; none when this process may not know."""
    try:
        return parse_mount_table(f"/proc/{pid}/mountinfo")
    except OSError:
        return []


def lock_holders(device: int, inode: int) -> list[int]:
    """Who has locked the file with flock(2), by /proc/locks.

    btrfs has another device there than stat(2) says; then it is the holder's own descriptors that count.
    """
    found = []
    for pid, major, minor, number in _FLOCK.findall(_read("/proc/locks")):
        if int(number) == inode and int(pid) > 0:
            same = os.makedev(int(major, 16), int(minor, 16)) == device
            if same or (device, inode) in _opened(int(pid)):
                found.append(int(pid))
    return found


def _opened(pid: int) -> set[tuple[int, int]]:
    found = set()
    for fd in _descriptors(pid):
        with suppress(OSError):
            if os.readlink(fd).startswith("/"):
                status = os.stat(fd)
                found.add((status.st_dev, status.st_ino))
    return found


def may_look_into(pid: int) -> bool:
    """Whether its descriptors can be known."""
    return os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK) and mount_namespace(pid) is not None


def opened_names(pid: int) -> set[str]:
    """What its descriptors are, by name."""
    return {_target(fd) for fd in _descriptors(pid)}


def serves_fuse(pid: int) -> bool:
    """Whether it has /dev/fuse open."""
    return any(_target(fd) == _FUSE for fd in _descriptors(pid))


def connection_of(pid: int) -> int | None:
    """The number of the living FUSE connection that it answers: that of its mount's device. None: it has none
    (yet, any more), or a kernel before 6.17 does not say.
    """
    for fd in _descriptors(pid):
        if _target(fd) == _FUSE:
            found = _CONNECTION.search(_read(fd.replace("/fd/", "/fdinfo/")))
            if found and not _is_disconnected(pid, int(fd.rpartition("/")[2])):
                return int(found[1])
    return None


def _is_disconnected(pid: int, fd: int) -> bool:
    """Whether its file system has ended. The descriptor says so still, when the number means another mount.

    Unknown counts as no: the descriptor of another process takes the right to trace it.
    """
    try:
        pid_fd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        copy = check(_pidfd_getfd(pid_fd, fd, 0))
    except OSError:
        return False
    finally:
        os.close(pid_fd)
    try:
        poll = select.poll()
        poll.register(copy, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))  # fuse_dev_poll
    finally:
        os.close(copy)


def uses_device(pid: int, device: int) -> bool:
    """Whether it has something of that file system open, mapped, or as its directory."""
    places = [f"/proc/{pid}/cwd", f"/proc/{pid}/root", *_descriptors(pid)]
    if any(device_unasked(place) == device for place in places):
        return True
    mapped = b" %02x:%02x " % (os.major(device), os.minor(device))
    return mapped in _read(f"/proc/{pid}/maps")


def threads_of(pid: int) -> list[int]:
    """Its threads; the first has the number of the process."""
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            yield f"/proc/{pid}/fd/{name}"


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it has ended, or is somebody else's
        return b""
