"""The asking side of the control socket, for overlayfs-pyctl and for Python programs."""

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from overlayfs_py.errors import MountError, shown
from overlayfs_py.options.remount import plain
from overlayfs_py.service.rundir import address_of, sockets
from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.mount import OWN_TYPE, mounted_filesystem
from overlayfs_py.syscalls.processes import is_stopped, wait_readable

_TIMEOUT = 30.0
_LOOK_SECONDS = 1.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class DaemonSilent(MountError):
    """It lives, and does not answer."""


class DaemonEnded(MountError):
    """It ended instead of answering, as one does whose mount is just being unmounted."""


class Connection:
    """One conversation with one daemon; use as a context manager."""

    def __init__(self, path: bytes, timeout: float = _TIMEOUT) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with address_of(path) as address:
                self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation, and what hangs on it."""
        self._lines.close()
        self._socket.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """The verb's result; MountError with the daemon's words when it says no, and when it says nothing."""
        try:
            self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            self._wait_for_answer()
            line = self._lines.readline()
        except TimeoutError:
            raise DaemonSilent(self._why_silent()) from None
        except ConnectionError:
            line = b""
        if not line:
            raise DaemonEnded("the daemon ended before it answered")
        answer = json.loads(line)
        if not answer["ok"]:
            raise MountError(answer["error"])
        return answer["result"]

    def _wait_for_answer(self) -> None:
        """TimeoutError when the time is up, and as soon as the daemon is found stopped."""
        limit = self._socket.gettimeout()
        end = None if limit is None else time.monotonic() + limit
        while not wait_readable(self._socket.fileno(), _LOOK_SECONDS):
            if is_stopped(self.pid) or (end is not None and time.monotonic() > end):
                raise TimeoutError

    def _why_silent(self) -> str:
        if is_stopped(self.pid):
            return f"the daemon (pid {self.pid}) is stopped: continue it (kill -CONT {self.pid})"
        limit = self._socket.gettimeout()
        return (
            f"the daemon (pid {self.pid}) does not answer within {limit:g} s: it hangs, or is very busy; "
            "its log may say why, and kill -9 ends it and leaves a dead mount to unmount"
        )

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

    def may_remount(self, *, read_only: bool, noatime: bool, kept: Mapping[str, object]) -> bool:
        """Whether the upper has to be synced after it; MountError when it may not be. `kept`: options that
        must be the mount's, by ``record.field``.
        """
        options = {field: plain(value) for field, value in kept.items()}
        return bool(self.ask("remount", read_only=read_only, noatime=noatime, options=options))


def find(run_dir: bytes, mountpoint: bytes) -> Connection | None:
    """The daemon that serves `mountpoint`, if there is one of this user.

    One whose mount was unmounted here and is kept elsewhere has the same name: it is found when no other is.
    """
    found = [daemon for path in sockets(run_dir, mountpoint) if (daemon := _connect(path)) is not None]
    if len(found) > 1 and (record := mounted_filesystem(mountpoint)) is not None:
        found.sort(key=lambda daemon: processes.connection_of(daemon.pid) != os.minor(record.device))
    for other in found[1:]:
        other.close()
    return found[0] if found else None


def connect(run_dir: bytes, mountpoint: bytes) -> Connection:
    """The daemon that serves `mountpoint`; MountError when there is none of this user."""
    if (connection := find(run_dir, mountpoint)) is not None:
        return connection
    raise MountError(f"{_why_nobody_answers(mountpoint)} (see: overlayfs-pyctl list)")


def ask_daemon(run_dir: bytes, pid: int, verb: str, **arguments: object) -> Any:
    """What the daemon `pid` says; MountError when it cannot be asked, or says no."""
    for path in sockets(run_dir, pid=pid):
        if (daemon := _connect(path)) is not None:
            with daemon:
                return daemon.ask(verb, **arguments)
    raise MountError(f"the daemon (pid {pid}) has no control socket in {shown(run_dir)}")


def _why_nobody_answers(mountpoint: bytes) -> str:
    """By the mount table: what is mounted there is not asked."""
    where, record = shown(mountpoint), mounted_filesystem(mountpoint)
    if record is None or record.fstype != OWN_TYPE:
        return f"no overlayfs-py is mounted on {where}"
    if b"user_id=%d" % os.geteuid() not in record.super_options:
        return f"the overlay on {where} is another user's"
    return (
        f"the daemon of the overlay on {where} does not answer: unmount it if the daemon has gone, "
        "or give its --run-dir"
    )


def ask_all(run_dir: bytes, verb: str, failed: Callable[[str], None]) -> list[dict[str, Any]]:
    """What every daemon that answers says, by mount point; why the others do not goes to `failed`."""
    found = []
    for path in sockets(run_dir):
        try:
            connection = _connect(path)
            if connection is None:
                continue
            with connection:
                found.append(connection.ask(verb))
        except DaemonEnded:
            continue
        except MountError as error:
            failed(str(error))
    return sorted(found, key=lambda answer: str(answer["mountpoint"]))


def _connect(path: bytes) -> Connection | None:
    """None for a socket whose daemon was killed; its name is removed. MountError when nobody takes calls."""
    try:
        connection = Connection(path)
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except OSError:
            pass
        return None
    except (TimeoutError, BlockingIOError):  # its backlog is full
        raise DaemonSilent(f"the daemon with the control socket {shown(path)} takes no more calls") from None
    except OSError:
        return None
    if connection.uid not in (0, os.geteuid()) and os.geteuid() != 0:
        connection.close()
        return None  # somebody else's program in its place
    return connection
