"""The mount point: clear our own dead mount before, check that the mount answers, leave nothing behind."""

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

_LOOK_SECONDS = 15.0  # no working daemon takes longer for statfs
# The program of the checking process; its exit status is the errno.
_ASK = """
import os, sys
try:
    os.stat(sys.argv[1])
    os.statvfs(sys.argv[1])
except OSError as e:
    sys.exit(e.errno)
"""


def make_way(options: MountOptions) -> None:
    """Clear a dead mount of ours that a killed daemon left; MountError when one of ours is alive there.

    Other mounts stay: ours then covers them, as with mount(8).
    """
    mountpoint = options.mountpoint
    while (record := mounted_filesystem(mountpoint)) is not None and record.fstype.startswith(b"fuse"):
        stale, ours = _is_dead(mountpoint), _is_ours(record, options)
        if ours and stale:
            log.warning("clearing the dead mount on %s", shown(mountpoint))
            unmount(mountpoint, lazy=True, abort=True)
        elif ours:
            raise _refusal(mountpoint, "an overlay is already mounted there; unmount it first")
        elif stale:
            raise _refusal(mountpoint, "a dead FUSE mount is there (its daemon has exited); unmount it first")
        else:
            return


def _is_dead(mountpoint: bytes) -> bool:
    """Whether the mount's daemon has exited. Another process checks, since a process that waits for an answer
    may be unkillable.

    MountError when there is no answer: then it is unknown whether the daemon still works.
    """
    looking = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ASK, mountpoint], stderr=DEVNULL)
    try:
        return looking.wait(_LOOK_SECONDS) in (errno.ENOTCONN, errno.ECONNABORTED)
    except subprocess.TimeoutExpired:
        looking.kill()
        with suppress(subprocess.TimeoutExpired):
            looking.wait(1)
        text = (
            "the FUSE mount there does not answer; if its daemon has exited, unmount it with umount -f first"
        )
        raise _refusal(mountpoint, text) from None


def _refusal(mountpoint: bytes, text: str) -> MountError:
    return MountError(f"cannot mount on {shown(mountpoint)}: {text}")


def _is_ours(record: MountRecord, options: MountOptions) -> bool:
    return record.fstype in (OWN_TYPE, b"fuse." + os.fsencode(options.subtype))


class LiveMount:
    """The mount just made on `mountpoint`, distinguished from later mounts over it."""

    def __init__(self, mountpoint: bytes) -> None:
        self.mountpoint = mountpoint
        record = mounted_filesystem(mountpoint)
        self.mount_id = record.mount_id if record is not None else -1
        self.connection = os.minor(record.device) if record is not None else -1

    def flags(self) -> list[str]:
        """Return its present flags in the mount table (ro, nosuid ...); none when it is unmounted."""
        found = [record for record in mount_table() if record.mount_id == self.mount_id]
        words = [os.fsdecode(word) for record in found for word in (*record.options, *record.super_options)]
        return list(dict.fromkeys(word for word in words if "=" not in word))

    def is_there(self) -> bool:
        """Whether it is still the topmost mount on its mount point; sends no request to the mount."""
        record = mounted_filesystem(self.mountpoint)
        return record is not None and record.mount_id == self.mount_id

    async def check_answers(self) -> None:
        """Check from another process that the mount answers; OSError when it does not.

        A thread of this process must not wait for the mount: if the daemon is killed, such a thread keeps
        /dev/fuse open and waits for ever, as does every user of the mount. When this is cancelled, the
        process is killed but not waited for.
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
        """Detach the mount if it is still there, even if it is in use; called when the daemon ends."""
        if self.is_there():
            unmount(self.mountpoint, lazy=True)
