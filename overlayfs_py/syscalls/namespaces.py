"""The mount namespace of this process: its other processes, and what else keeps it alive.

A mount namespace ends with its last process. A daemon is itself one of its processes, so it has to find out
whether all others have left.
"""

import fcntl
import os
from collections.abc import Callable, Iterator

from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.privileges import CAP_SYS_PTRACE, has_capability
from overlayfs_py.syscalls.processes import mount_namespace, mounts_of, pids

_NS_GET_USERNS = 0xB701  # ioctl_nsfs(2)


def may_know_members() -> bool:
    """Whether /proc shows every process of this mount namespace.

    That takes CAP_SYS_PTRACE in the user namespace that owns the mount namespace: otherwise processes of
    other users are not visible. And /proc must belong to this process's PID namespace.
    """
    try:
        if int(os.readlink("/proc/self")) != os.getpid() or not has_capability(CAP_SYS_PTRACE):
            return False
        return _owner() == os.stat("/proc/self/ns/user").st_ino
    except (OSError, ValueError):
        return False


def _owner() -> int:
    """Return the number of the user namespace that owns this mount namespace."""
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
    """Yield the processes with a thread in this mount namespace for which `counts` is true, lowest pids first
    (those with only some of their threads here last).
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
    """Whether processes may still enter this mount namespace: through a file that it is bound to in another
    one (``unshare --mount=FILE``), or through another process's open descriptor.
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
