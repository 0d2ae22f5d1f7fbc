"""Other processes in /proc: whether they run, which mounts they see, which files they have open.

Nothing here sends requests to a mounted file system, so that a dead or stopped FUSE daemon cannot hang it.
Processes of other users may be unreadable: they are skipped.
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
from overlayfs_py.syscalls.statx import device_without_request

_FUSE = "/dev/fuse"
_pidfd_getfd = system_call(438, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_CONNECTION = re.compile(rb"^fuse_connection:\s*(\d+)$", re.MULTILINE)
_PENDING = re.compile(rb"^ShdPnd:\s*([0-9a-f]+)$", re.MULTILINE)
_FLOCK = re.compile(rb": FLOCK +ADVISORY +WRITE (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")


def pids() -> list[int]:
    """Return all visible processes, lowest pids first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def state_of(pid: int) -> str:
    """Return the state as in ps(1): R, S, D, T, Z ...; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return chr(file.read().rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process."""
    return state_of(pid) in ("T", "t")


def is_ending(pid: int) -> bool:
    """Whether the process has ended, or SIGKILL is pending for it."""
    if state_of(pid) in ("", "Z", "X"):
        return True
    found = _PENDING.search(_read(f"/proc/{pid}/status"))
    return found is not None and bool(int(found[1], 16) >> (signal.SIGKILL - 1) & 1)


def parent_of(pid: int) -> int:
    """Return the parent process; 0 when the process has ended."""
    words = _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def command_of(pid: int) -> str:
    """Return the name of the program, as ps(1) shows it."""
    return os.fsdecode(_read(f"/proc/{pid}/comm")).rstrip("\n") or "?"


def words_of(pid: int) -> list[bytes]:
    """Return the command line; empty when the process has ended."""
    return _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]


def wait_readable(fd: int, seconds: float | None) -> bool:
    """Wait until `fd` is readable (a pidfd: its process has ended); False after `seconds`; None: no limit."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else round(seconds * 1000)))


def mount_namespace(pid: int | str, thread: int | None = None) -> int | None:
    """Return the number of the mount namespace; None when the process has ended or is not readable."""
    task = f"/task/{thread}" if thread is not None else ""
    try:
        return os.stat(f"/proc/{pid}{task}/ns/mnt").st_ino
    except OSError:
        return None


def root_of(pid: int) -> str:
    """Return the path of the root directory."""
    return _target(f"/proc/{pid}/root")


def mounts_of(pid: int) -> list[MountRecord]:
    """Return the mounts reachable from its root directory; none when the process is not readable."""
    try:
        return parse_mount_table(f"/proc/{pid}/mountinfo")
    except OSError:
        return []


def lock_holders(device: int, inode: int) -> list[int]:
    """Return the processes that have locked the file with flock(2), by /proc/locks.

    On btrfs /proc/locks shows another device than stat(2); then the holder's open files decide.
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
    """Whether its descriptors and its mount namespace are readable."""
    return os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK) and mount_namespace(pid) is not None


def opened_names(pid: int) -> set[str]:
    """Return the targets of its descriptors."""
    return {_target(fd) for fd in _descriptors(pid)}


def serves_fuse(pid: int) -> bool:
    """Whether the process has /dev/fuse open."""
    return any(_target(fd) == _FUSE for fd in _descriptors(pid))


def connection_of(pid: int) -> int | None:
    """Return the number of the live FUSE connection that the process serves, which is its mount's device
    number.

    None: it has none, or the kernel is older than 6.17.
    """
    for fd in _descriptors(pid):
        if _target(fd) == _FUSE:
            found = _CONNECTION.search(_read(fd.replace("/fd/", "/fdinfo/")))
            if found and not _is_disconnected(pid, int(fd.rpartition("/")[2])):
                return int(found[1])
    return None


def _is_disconnected(pid: int, fd: int) -> bool:
    """Whether the connection of this descriptor has ended; its number may belong to another mount then.

    False when unknown, since access to another process's descriptor requires the right to trace it.
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
    """Whether the process uses that file system: open files, mappings, current or root directory."""
    places = [f"/proc/{pid}/cwd", f"/proc/{pid}/root", *_descriptors(pid)]
    if any(device_without_request(place) == device for place in places):
        return True
    mapped = b" %02x:%02x " % (os.major(device), os.minor(device))
    return mapped in _read(f"/proc/{pid}/maps")


def threads_of(pid: int) -> list[int]:
    """Return its threads; the first has the number of the process."""
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
    except OSError:  # it has ended, or is another user's
        return b""
