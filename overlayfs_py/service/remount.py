"""``mount -o remount``: change the flags of a live mount, for callers that may use mount(2).

The daemon must agree first: only it knows the mount's options and whether there is an upper.
"""

import os
from collections.abc import Sequence

from overlayfs_py.errors import MountError, shown
from overlayfs_py.options.parse import Pair
from overlayfs_py.options.remount import RELATIME, RemountOptions, parse_remount
from overlayfs_py.service import client
from overlayfs_py.syscalls import mount as system
from overlayfs_py.syscalls.mount import MountRecord

_FLAGS = {
    "read_only": system.MS_RDONLY,
    "nosuid": system.MS_NOSUID,
    "nodev": system.MS_NODEV,
    "noexec": system.MS_NOEXEC,
    "noatime": system.MS_NOATIME,
    RELATIME: system.MS_RELATIME,
}


def remount(
    pairs: Sequence[Pair], *, mountpoint: bytes, cwd: bytes, complete: bool, run_dir: bytes
) -> tuple[str, ...]:
    """Change the mount's flags; return the warnings. After MountError or ConfigError nothing is changed.

    `complete`: clear flags that are not named, as mount(2) does and mount(8) expects; otherwise they stay.
    When the mount becomes read-only, everything written before is durable, as with kernel overlayfs.
    """
    record = system.mounted_filesystem(mountpoint)
    if record is None:
        raise MountError(f"cannot remount {shown(mountpoint)}: nothing is mounted there")
    words = [os.fsdecode(word) for word in (*record.options, *record.super_options)]
    asked = parse_remount(pairs, cwd=cwd, shown=words)
    flags = asked.flags if complete else _merged(asked, words)
    read_only, noatime = flags.get("read_only", False), flags.get("noatime", False)
    try:
        with _daemon(record, run_dir) as daemon:
            must_sync = daemon.may_remount(read_only=read_only, noatime=noatime, kept=asked.kept)
            system.remount(mountpoint, sum(bit for name, bit in _FLAGS.items() if flags.get(name)))
            if must_sync and "ro" not in words:
                daemon.wait_without_limit()
                daemon.ask("sync")
    except MountError as refusal:
        raise MountError(f"cannot remount {shown(mountpoint)}: {refusal}") from refusal
    return asked.warnings


def _merged(asked: RemountOptions, words: Sequence[str]) -> dict[str, bool]:
    """Return the mount's flags, with the named ones replaced."""
    has = {name: name in words for name in _FLAGS} | {"read_only": "ro" in words}
    if asked.flags.get("noatime") is False:  # without a flag for access times the kernel keeps it
        has[RELATIME] = True
    return has | dict(asked.flags)


def _daemon(record: MountRecord, run_dir: bytes) -> client.Connection:
    """Connect to the daemon that serves the mount, which may be a bind mount."""
    same = [other.mountpoint for other in system.mount_table() if other.device == record.device]
    for mountpoint in sorted(same, key=lambda other: other != record.mountpoint):
        connection = client.find(run_dir, mountpoint)
        if connection is not None:
            return connection
    raise MountError("no overlayfs-py daemon of yours serves it (mount -i -o remount,... needs no daemon)")
