"""Who keeps an overlay that is not mounted here any more, in words that say what helps.

A file system lives as long as any mount namespace has it mounted or any process has a file of it open. Known
by /proc alone: nobody is asked, so a daemon that hangs hangs nobody here.
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
    """One process of those that keep an overlay; `files`: by open files, not by its mount namespace."""

    pid: int
    command: str
    more: int  # how many others are with it in its mount namespace
    files: bool
    mountpoint: bytes | None = None  # where its mount namespace has it

    def __str__(self) -> str:
        """``pid 4242 (sleep) in another mount namespace``."""
        others = f" and {self.more} more" if self.more else ""
        how = "with open files of it" if self.files else "in another mount namespace"
        return f"pid {self.pid} ({self.command}){others} {how}"


def connection_of(pid: int, run_dir: bytes | None) -> int | None:
    """The number of the daemon's FUSE connection; None while it has none, before it mounts and when it ends.

    Kernels before 6.17 do not say: there it is asked itself.
    """
    found = processes.connection_of(pid)
    if found is None and run_dir is not None and processes.serves_fuse(pid):
        from overlayfs_py.service import client  # the daemon itself needs none

        with suppress(MountError, TypeError, ValueError):
            found = int(client.ask_daemon(run_dir, pid, "status").get("connection"))
    return found


def shown_here(connection: int) -> list[MountRecord]:
    """The mounts of this FUSE connection in the own mount namespace, topmost last."""
    device = os.makedev(0, connection)
    return [record for record in mount_table() if record.device == device]


def keepers(connection: int, *, besides: Collection[int] = ()) -> list[Keeper]:
    """Who keeps it, one process for each mount namespace; those with open files when no namespace has it.

    `besides`: the daemon itself, and whoever else does not count. Of other users' processes an ordinary user
    learns nothing.
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


def said(found: Collection[Keeper]) -> str:
    """``pid 4242 (sleep) in another mount namespace; pid 7 ...``."""
    return "; ".join(map(str, found))


def _keeper(members: list[int], mountpoint: bytes | None) -> Keeper:
    command, more = processes.command_of(members[0]), len(members) - 1
    return Keeper(pid=members[0], command=command, more=more, files=mountpoint is None, mountpoint=mountpoint)


def _other_namespaces(besides: Collection[int]) -> list[list[int]]:
    """The processes of every other mount namespace."""
    ours = mount_namespace("self")
    groups: dict[int, list[int]] = {}
    for pid in pids():
        namespace = mount_namespace(pid)
        if namespace is not None and namespace != ours and pid not in besides:
            groups.setdefault(namespace, []).append(pid)
    return list(groups.values())


def _by_root(members: list[int]) -> Iterator[int]:
    """One process for every root directory among them: it sees the mounts below its own alone."""
    roots = set()
    for pid in members:
        root = processes.root_of(pid)
        if root not in roots:
            roots.add(root)
            yield pid


def is_daemon(pid: int) -> bool:
    """Whether it serves an overlay of ours."""
    return _is_ours(pid) and processes.serves_fuse(pid)


def may_be_daemon(pid: int) -> bool:
    """Whether it is such a one, or one that starts or ends, or some other program that serves a mount."""
    return _is_ours(pid) or processes.serves_fuse(pid)


def _is_ours(pid: int) -> bool:
    words = processes.words_of(pid)[:5]  # python, its options, the program, -m and the module, or -c and all
    return any(name in word for word in words for name in _NAMES)


def place_of(pid: int, *, found: Collection[Keeper] = ()) -> bytes | None:
    """Where the overlay of the daemon `pid` was mounted, by those who keep it or by its own command line."""
    for keeper in found:
        if keeper.mountpoint is not None:
            return keeper.mountpoint
    last = processes.words_of(pid)[-1:]
    return last[0] if last and last[0].startswith(b"/") else None
