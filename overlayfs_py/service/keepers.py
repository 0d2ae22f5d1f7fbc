"""Find the processes that keep an overlay alive after it was unmounted here, for messages that help.

A file system lives as long as any mount namespace has it mounted or any process has one of its files open.
This module reads /proc only, so that a hanging daemon cannot hang its caller.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from overlayfs_py.errors import MountError
from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.mount import MountRecord, mount_table
from overlayfs_py.syscalls.processes import mount_namespace, mounts_of, pids

_NAMES = (b"overlayfs-py", b"overlayfs_py")
FORCE = "overlayfs-pyctl umount -f"


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeper:
    """One process that keeps an overlay alive; `files`: by open files, not by its mount namespace."""

    pid: int
    command: str
    more: int  # other processes in its mount namespace
    files: bool
    mountpoint: bytes | None = None  # in its mount namespace

    def __str__(self) -> str:
        """``pid 4242 (sleep) in another mount namespace``."""
        others = f" and {self.more} more" if self.more else ""
        how = "with open files of it" if self.files else "in another mount namespace"
        return f"pid {self.pid} ({self.command}){others} {how}"


def connection_of(pid: int, run_dir: bytes | None) -> int | None:
    """Return the number of the daemon's FUSE connection; None before it mounts and after it unmounts.

    Kernels before 6.17 do not tell it: then the daemon itself is asked.
    """
    found = processes.connection_of(pid)
    if found is None and run_dir is not None and processes.serves_fuse(pid):
        from overlayfs_py.service import client  # the daemon itself never needs it

        with suppress(MountError, TypeError, ValueError):
            found = int(client.ask_daemon(run_dir, pid, "status").get("connection"))
    return found


def mounts_here(connection: int) -> list[MountRecord]:
    """Return the mounts of this FUSE connection in our mount namespace, topmost last."""
    device = os.makedev(0, connection)
    return [record for record in mount_table() if record.device == device]


def keepers(connection: int, *, besides: Collection[int] = ()) -> list[Keeper]:
    """Return one process for each mount namespace that has it mounted, or else the processes with open files.

    `besides`: processes that do not count, such as the daemon. An ordinary user does not see other users'
    processes.
    """
    device = os.makedev(0, connection)
    found = []
    for members in _other_namespaces(besides):
        seen = (record for pid in _by_root(members) for record in mounts_of(pid))
        mountpoint = next((record.mountpoint for record in seen if record.device == device), None)
        if mountpoint is not None:
            found.append(_keeper(members, mountpoint))
    if found:
        return found
    users = [pid for pid in pids() if pid not in besides and processes.uses_device(pid, device)]
    return [_keeper([pid], None) for pid in users]


def describe(found: Collection[Keeper]) -> str:
    """``pid 4242 (sleep) in another mount namespace; pid 7 ...``."""
    return "; ".join(map(str, found))


def _keeper(members: list[int], mountpoint: bytes | None) -> Keeper:
    command, more = processes.command_of(members[0]), len(members) - 1
    return Keeper(pid=members[0], command=command, more=more, files=mountpoint is None, mountpoint=mountpoint)


def _other_namespaces(besides: Collection[int]) -> list[list[int]]:
    """Return the processes of every other mount namespace."""
    ours = mount_namespace("self")
    groups: dict[int, list[int]] = {}
    for pid in pids():
        namespace = mount_namespace(pid)
        if namespace is not None and namespace != ours and pid not in besides:
            groups.setdefault(namespace, []).append(pid)
    return list(groups.values())


def _by_root(members: list[int]) -> Iterator[int]:
    """Yield one process for each root directory: a process sees only the mounts below its own."""
    roots = set()
    for pid in members:
        root = processes.root_of(pid)
        if root not in roots:
            roots.add(root)
            yield pid


def is_daemon(pid: int) -> bool:
    """Whether the process serves an overlay of ours."""
    return _is_ours(pid) and processes.serves_fuse(pid)


def may_be_daemon(pid: int) -> bool:
    """Whether the process is a daemon of ours, perhaps starting or ending, or serves another FUSE mount."""
    return _is_ours(pid) or processes.serves_fuse(pid)


def _is_ours(pid: int) -> bool:
    words = processes.words_of(pid)[:5]  # python, its options, the program, -m and the module, or -c and all
    return any(name in word for word in words for name in _NAMES)


def mountpoint_of(pid: int, *, found: Collection[Keeper] = ()) -> bytes | None:
    """Return where the daemon's overlay was mounted, by its keepers or by its command line; None: unknown."""
    for keeper in found:
        if keeper.mountpoint is not None:
            return keeper.mountpoint
    last = processes.words_of(pid)[-1:]
    return last[0] if last and last[0].startswith(b"/") else None
