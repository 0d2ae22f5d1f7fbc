"""Ending with the mount namespace: the daemon is a process of it, so that its last user's end tells nobody.

One other process at a time is watched by a pidfd, so that nothing wakes up while it lives; when it has ended
another one is looked for. The last one gone, the mount is detached as the kernel would with the namespace.
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

# How often it is looked whether a namespace without processes still has a name.
_LOOK_AGAIN = 60.0


async def detach_when_alone(mount: LiveMount) -> None:
    """Detach the mount once nobody but this process can see it; never when nobody could from the start, as in
    a unit with a mount namespace of its own.
    """
    if not may_know_members():
        return
    looking = partial(trio.to_thread.run_sync, _somebody, mount.connection)
    somebody = next(members(_counts), None)  # at once: whoever started us is about to end
    if somebody is None:
        return
    while True:
        if somebody is not None:
            await _wait_ended(somebody)
        elif await trio.to_thread.run_sync(is_kept):
            await trio.sleep(_LOOK_AGAIN)
        else:
            break
        somebody = await looking()
    log.info("%s: nobody is left in its mount namespace: detaching it", shown(mount.mountpoint))
    _detach(mount)


def _somebody(connection: int) -> int | None:
    """Another process that sees the mount, in this mount namespace or in one where it is mounted as well."""
    here = next(members(_counts), None)
    if here is not None:
        return here
    elsewhere = (keeper.pid for keeper in keepers(connection, besides=[os.getpid()]) if not keeper.files)
    return next(elsewhere, None)


def _counts(pid: int) -> bool:
    """Not this process and the short-lived ones that it starts, nor other overlays' daemons, which would wait
    for each other.
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
    if mount.mount_id not in (record.mount_id for record in table):  # somebody has unmounted it already
        return
    with suppress(OSError):  # as when the kernel ends a namespace: nobody else's mounts go with it
        keep_changes_here()
    device = os.makedev(0, mount.connection)
    for record in reversed([record for record in table if record.device == device]):
        try:
            unmount(record.mountpoint, lazy=True)
        except MountError as error:
            log.warning("%s", error)
