"""The mount namespace of this process: who else lives in it, and whether something keeps it for later.

A mount namespace ends with its last process. One that serves a mount is a process of it, too, so it has to
find out by itself that all others have left.
"""

import fcntl
import os
from collections.abc import Callable, Iterator

from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.privileges import CAP_SYS_PTRACE, has_capability
from overlayfs_py.syscalls.processes import mount_namespace, mounts_of, pids

_NS_GET_USERNS = 0xB701  # ioctl_nsfs(2)


def may_know_members() -> bool:
    """Whether every process that is in this mount namespace can be known by /proc.

    It takes CAP_SYS_PTRACE in the user namespace that owns the mount namespace: without, another user's
    process may be in it, and nobody would see. And /proc has to count processes as this process does.
    """
    try:
        if int(os.readlink("/proc/self")) != os.getpid() or not has_capability(CAP_SYS_PTRACE):
            return False
        return _owner() == os.stat("/proc/self/ns/user").st_ino
    except (OSError, ValueError):
        return False


def _owner() -> int:
    """The number of the user namespace that owns this mount namespace."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner_fd = fcntl.ioctl(fd, _NS_GET_USERNS)
    finally:
        os.close(fd)
    try:
        return os.fstat(owner_fd).st_ino
    finally:
        os.close(owner_fd)


def members(counts: Callable[[int], bool]) -> Iterator[int]:
    """The processes that are in this mount namespace, if only with one of their threads; oldest
    numbers first, those for which `counts` is false left out.
    """
    ours = mount_namespace("self")
    others = []
    for pid in pids():
        namespace = mount_namespace(pid)
        if namespace == ours:
            if counts(pid):
                yield pid
        elif namespace is not None:
            others.append(pid)
    for pid in others:
        threads = processes.threads_of(pid)[1:]
        if any(mount_namespace(pid, thread) == ours for thread in threads) and counts(pid):
            yield pid


def is_kept() -> bool:
    """Whether this mount namespace has a name that somebody may enter it by: a file in another one that it is
    bound to (``unshare --mount=FILE``), or an open descriptor of another process.
    """
    ours = mount_namespace("self")
    name = f"mnt:[{ours}]"
    seen = {ours}
    for pid in pids():
        if pid != os.getpid() and name in processes.opened_names(pid):
            return True
        namespace = mount_namespace(pid)
        if namespace not in seen:
            seen.add(namespace)
            if any(
                record.fstype == b"nsfs" and os.fsdecode(record.root) == name for record in mounts_of(pid)
            ):
                return True
    return False
