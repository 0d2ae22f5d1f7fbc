"""End the mount with its mount namespace. The daemon is itself in the namespace and so keeps it alive.

The daemon waits for the end of one other process at a time through a pidfd, so that it never wakes up in
vain; then it looks for another one. When none is left, it detaches the mount, as the kernel would with the
namespace (decision 0003).
"""

import logging
import os
from contextlib import suppress
from functools import partial

import trio

from overlayfs_py.errors import MountError, shown
from overlayfs_py.service.keepers import is_daemon, keepers
from overlayfs_py.service.mountpoint import LiveMount
from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.mount import keep_changes_here, mount_table, unmount
from overlayfs_py.syscalls.namespaces import is_kept, may_know_members, members

log = logging.getLogger("overlayfs_py.mount")

# Seconds between checks whether a namespace without processes still has a name.
_LOOK_AGAIN = 60.0


async def detach_when_alone(mount: LiveMount) -> None:
    """Detach the mount once only this process can see it.

    Do nothing if that was so from the start, as in a systemd unit with its own mount namespace.
    """
    if not may_know_members():
        return
    find_another = partial(trio.to_thread.run_sync, _another_process, mount.connection)
    other = next(members(_counts), None)  # at once, since the process that started us is about to end
    if other is None:
        return
    while True:
        if other is not None:
            await _wait_ended(other)
        elif await trio.to_thread.run_sync(is_kept):
            await trio.sleep(_LOOK_AGAIN)
        else:
            break
        other = await find_another()
    log.info("%s: no other process is left in its mount namespace: detaching it", shown(mount.mountpoint))
    _detach(mount)


def _another_process(connection: int) -> int | None:
    """Return another process that sees the mount, in this mount namespace or in another that has it
    mounted.
    """
    here = next(members(_counts), None)
    if here is not None:
        return here
    elsewhere = (keeper.pid for keeper in keepers(connection, besides=[os.getpid()]) if not keeper.files)
    return next(elsewhere, None)


def _counts(pid: int) -> bool:
    """Whether a process counts: not this one and its short-lived children, nor daemons of other overlays,
    which would wait for each other.
    """
    parent = processes.parent_of(pid)
    if pid == os.getpid() or parent == os.getpid():
        return False
    return not (is_daemon(pid) or (parent > 1 and is_daemon(parent)))


async def _wait_ended(pid: int) -> None:
    try:
        pid_fd = os.pidfd_open(pid)
    except OSError:  # just ended
        return
    try:
        await trio.lowlevel.wait_readable(pid_fd)
    finally:
        trio.lowlevel.notify_closing(pid_fd)
        os.close(pid_fd)


def _detach(mount: LiveMount) -> None:
    table = mount_table()
    if mount.mount_id not in (record.mount_id for record in table):  # it is already unmounted
        return
    with suppress(OSError):  # mounts of other namespaces stay, as when the kernel ends a namespace
        keep_changes_here()
    device = os.makedev(0, mount.connection)
    for record in reversed([record for record in table if record.device == device]):
        try:
            unmount(record.mountpoint, lazy=True)
        except MountError as error:
            log.warning("%s", error)
