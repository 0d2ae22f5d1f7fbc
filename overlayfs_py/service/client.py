"""The asking side of the control socket, for overlayfs-pyctl and for Python programs."""

import json
import os
import select
import socket
import struct
from collections.abc import Mapping
from typing import Any

from overlayfs_py.errors import MountError, shown
from overlayfs_py.options.remount import plain
from overlayfs_py.service.rundir import sockets
from overlayfs_py.syscalls.mount import OWN_TYPE, mounted_filesystem

_TIMEOUT = 30.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Connection:
    """One conversation with one daemon; use as a context manager."""

    def __init__(self, path: bytes, timeout: float = _TIMEOUT) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """The verb's result; MountError with the daemon's words when it says no."""
        self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise MountError("the daemon ended before it answered")
        answer = json.loads(line)
        if not answer["ok"]:
            raise MountError(answer["error"])
        return answer["result"]

    def wait_without_limit(self) -> None:
        """For verbs whose time nobody can know."""
        self._socket.settimeout(None)

    def freeze(self, *, timeout: float | None, hold: bool) -> Any:
        """Freeze the mount: for `timeout` seconds, with `hold` no longer than this conversation. The daemon
        itself gives up when requests under way do not end.
        """
        self.wait_without_limit()
        try:
            return self.ask("freeze", timeout=timeout, hold=hold)
        finally:
            self._socket.settimeout(_TIMEOUT)

    def may_remount(self, *, read_only: bool, kept: Mapping[str, object]) -> bool:
        """Whether the upper has to be synced after it; MountError when it may not be. `kept`: options that
        must be the mount's, by ``record.field``.
        """
        options = {field: plain(value) for field, value in kept.items()}
        return bool(self.ask("remount", read_only=read_only, options=options))

    def wait_ended(self) -> None:
        """Wait until the daemon has ended: it holds the layers until then."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(credentials)
        try:
            pid_fd = os.pidfd_open(pid)
        except OSError:  # ended already, or in a pid namespace that we do not see
            return
        try:
            select.select([pid_fd], [], [], self._socket.gettimeout())
        finally:
            os.close(pid_fd)


def find(run_dir: bytes, mountpoint: bytes) -> Connection | None:
    """The daemon that serves `mountpoint`, if there is one of this user."""
    return next((found for path in sockets(run_dir, mountpoint) if (found := _connect(path))), None)


def connect(run_dir: bytes, mountpoint: bytes) -> Connection:
    """The daemon that serves `mountpoint`; MountError when there is none of this user."""
    connection = find(run_dir, mountpoint)
    if connection is not None:
        return connection
    raise MountError(f"{_why_nobody_answers(mountpoint)} (see: overlayfs-pyctl list)")


def _why_nobody_answers(mountpoint: bytes) -> str:
    """By the mount table: what is mounted there is not asked."""
    where, record = shown(mountpoint), mounted_filesystem(mountpoint)
    if record is None or record.fstype != OWN_TYPE:
        return f"no overlayfs-py is mounted on {where}"
    if b"user_id=%d" % os.geteuid() not in record.super_options:
        return f"the overlay on {where} is another user's"
    return (
        f"nobody answers for the overlay on {where}: umount it if its daemon has gone, or name its --run-dir"
    )


def ask_all(run_dir: bytes, verb: str) -> list[dict[str, Any]]:
    """What every daemon that answers says, by mount point."""
    found = []
    for path in sockets(run_dir):
        connection = _connect(path)
        if connection is None:
            continue
        with connection:
            try:
                found.append(connection.ask(verb))
            except (OSError, MountError):  # it is just ending
                continue
    return sorted(found, key=lambda answer: str(answer["mountpoint"]))


def _connect(path: bytes) -> Connection | None:
    """None for a socket whose daemon was killed; its name is removed."""
    try:
        return Connection(path)
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except OSError:
            pass
    except OSError:
        pass
    return None
