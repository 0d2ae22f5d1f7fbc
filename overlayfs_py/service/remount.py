"""``mount -o remount``: the flags of a live mount are changed, by whoever may call mount(2).

The daemon is asked first: it alone knows the mount's options, and whether there is an upper.
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
    """Change what may change; the warnings. MountError or ConfigError: nothing was changed.

    `complete`: flags that are not named are cleared, as mount(2) does and mount(8) reckons with; else they
    stay. What was written before a mount became read-only is durable then, as with kernel overlayfs.
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
    """What was named over what the mount has."""
    has = {name: name in words for name in _FLAGS} | {"read_only": "ro" in words}
    if asked.flags.get("noatime") is False:  # the kernel keeps it where nothing is said of access times
        has[RELATIME] = True
    return has | dict(asked.flags)


def _daemon(record: MountRecord, run_dir: bytes) -> client.Connection:
    """Whoever serves the filesystem that is mounted there, be it that of a bind mount."""
    same = [other.mountpoint for other in system.mount_table() if other.device == record.device]
    for mountpoint in sorted(same, key=lambda other: other != record.mountpoint):
        connection = client.find(run_dir, mountpoint)
        if connection is not None:
            return connection
    raise MountError("no overlayfs-py of yours serves it (mount -i -o remount,... asks nobody)")
