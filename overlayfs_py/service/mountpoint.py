"""The mount point's life: cleared of our own dead mount, checked to answer, left with nothing of ours."""

import errno
import logging
import os
import subprocess
import sys
from contextlib import suppress
from subprocess import DEVNULL

import trio

from overlayfs_py.errors import MountError, fail, shown
from overlayfs_py.options import MountOptions
from overlayfs_py.syscalls.mount import OWN_TYPE, MountRecord, mount_table, mounted_filesystem, unmount

log = logging.getLogger("overlayfs_py.mount")

_LOOK_SECONDS = 15.0  # more than any daemon keeps somebody waiting for statfs
# What the asking process runs; its exit status is the errno.
_ASK = """
import os, sys
try:
    os.stat(sys.argv[1])
    os.statvfs(sys.argv[1])
except OSError as e:
    sys.exit(e.errno)
"""


def make_way(options: MountOptions) -> None:
    """Clear a mount of ours that a killed daemon left; MountError when one of ours is alive there.

    Somebody else's mount is left alone: ours then covers it, as mount(8) does.
    """
    mountpoint = options.mountpoint
    while (record := mounted_filesystem(mountpoint)) is not None and record.fstype.startswith(b"fuse"):
        stale, ours = _is_dead(mountpoint), _is_ours(record, options)
        if ours and stale:
            log.warning("clearing the dead mount on %s", shown(mountpoint))
            unmount(mountpoint, lazy=True, abort=True)
        elif ours:
            raise _refusal(mountpoint, "an overlay is mounted there already; unmount it first")
        elif stale:
            raise _refusal(mountpoint, "a dead FUSE mount is there (its daemon has gone); unmount it first")
        else:
            return


def _is_dead(mountpoint: bytes) -> bool:
    """Whether its daemon has gone. Another process looks: not all who wait for an answer can be killed.

    MountError when there is no answer: whether the daemon still works cannot be known.
    """
    looking = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ASK, mountpoint], stderr=DEVNULL)
    try:
        return looking.wait(_LOOK_SECONDS) in (errno.ENOTCONN, errno.ECONNABORTED)
    except subprocess.TimeoutExpired:
        looking.kill()
        with suppress(subprocess.TimeoutExpired):
            looking.wait(1)
        text = "the FUSE mount there does not answer; if its daemon has gone, umount -f it first"
        raise _refusal(mountpoint, text) from None


def _refusal(mountpoint: bytes, text: str) -> MountError:
    return MountError(f"cannot mount on {shown(mountpoint)}: {text}")


def _is_ours(record: MountRecord, options: MountOptions) -> bool:
    return record.fstype in (OWN_TYPE, b"fuse." + os.fsencode(options.subtype))


class LiveMount:
    """The mount made on `mountpoint` just now, told apart from what others mount over it."""

    def __init__(self, mountpoint: bytes) -> None:
        self.mountpoint = mountpoint
        record = mounted_filesystem(mountpoint)
        self.mount_id = record.mount_id if record is not None else -1
        self.connection = os.minor(record.device) if record is not None else -1

    def flags(self) -> list[str]:
        """Its flags as the mount table has them now (ro, nosuid ...); none when it has gone."""
        found = [record for record in mount_table() if record.mount_id == self.mount_id]
        words = [os.fsdecode(word) for record in found for word in (*record.options, *record.super_options)]
        return list(dict.fromkeys(word for word in words if "=" not in word))

    def is_there(self) -> bool:
        """Whether it is (still) the topmost mount on its mount point; asks the mounted filesystem nothing."""
        record = mounted_filesystem(self.mountpoint)
        return record is not None and record.mount_id == self.mount_id

    async def check_answers(self) -> None:
        """Use the mount as anybody would, from a process of its own; OSError says how it failed.

        A thread of ours that waits for our own answer keeps /dev/fuse open when we are killed, and so waits
        for ever, and with it everybody who touches the mount. Given up, the process is not waited for.
        """
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", "-c", _ASK, self.mountpoint],
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        if status:
            fail(status, self.mountpoint)

    def leave_nothing(self) -> None:
        """Detach the mount if it is still there, whatever uses it; for the daemon's end."""
        if self.is_there():
            unmount(self.mountpoint, lazy=True)
