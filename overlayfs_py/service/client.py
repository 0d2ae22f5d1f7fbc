"""Client of the control socket, for overlayfs-pyctl and Python programs."""

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
    """The daemon runs and does not answer."""


class DaemonEnded(MountError):
    """The daemon ended instead of answering, as it does after an unmount."""


class Connection:
    """A connection to one daemon; use it as a context manager."""

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
        """Close the connection, which ends what a verb holds for its duration."""
        self._lines.close()
        self._socket.close()

    def ask(self, verb: str, **arguments: object) -> Any:
        """Return the verb's result; MountError with the daemon's message when it refuses or does not
        answer.
        """
        try:
            self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            self._wait_for_answer()
            line = self._lines.readline()
        except TimeoutError:
            raise DaemonSilent(self._why_silent()) from None
        except ConnectionError:
            line = b""
        if not line:
            raise DaemonEnded("the daemon exited before it answered")
        answer = json.loads(line)
        if not answer["ok"]:
            raise MountError(answer["error"])
        return answer["result"]

    def _wait_for_answer(self) -> None:
        """Raise TimeoutError when the time is up, or as soon as the daemon is stopped."""
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
            f"the daemon (pid {self.pid}) does not answer within {limit:g} s: it hangs or is very busy; "
            "see its log; kill -9 ends it and leaves a dead mount to unmount"
        )

    def wait_without_limit(self) -> None:
        """Remove the time limit, for verbs that may take any time."""
        self._socket.settimeout(None)

    def freeze(self, *, timeout: float | None, hold: bool) -> Any:
        """Freeze the mount for `timeout` seconds; with `hold`, at most for as long as this connection.

        MountError when requests in progress do not end.
        """
        self.wait_without_limit()
        try:
            return self.ask("freeze", timeout=timeout, hold=hold)
        finally:
            self._socket.settimeout(_TIMEOUT)

    def may_remount(self, *, read_only: bool, noatime: bool, kept: Mapping[str, object]) -> bool:
        """Ask whether a remount is allowed; return whether the upper must be synced afterwards.

        `kept`: options that must equal the mount's, by ``record.field``. MountError when it is not allowed.
        """
        options = {field: plain(value) for field, value in kept.items()}
        return bool(self.ask("remount", read_only=read_only, noatime=noatime, options=options))


def find(run_dir: bytes, mountpoint: bytes) -> Connection | None:
    """Connect to this user's daemon that serves `mountpoint`; None when there is none.

    A daemon whose mount was unmounted here, but is still in use elsewhere, has the same name; it is the last
    choice.
    """
    found = [daemon for path in sockets(run_dir, mountpoint) if (daemon := _connect(path)) is not None]
    if len(found) > 1 and (record := mounted_filesystem(mountpoint)) is not None:
        found.sort(key=lambda daemon: processes.connection_of(daemon.pid) != os.minor(record.device))
    for other in found[1:]:
        other.close()
    return found[0] if found else None


def connect(run_dir: bytes, mountpoint: bytes) -> Connection:
    """Connect to this user's daemon that serves `mountpoint`; MountError when there is none."""
    if (connection := find(run_dir, mountpoint)) is not None:
        return connection
    raise MountError(f"{_why_no_daemon(mountpoint)} (see: overlayfs-pyctl list)")


def ask_daemon(run_dir: bytes, pid: int, verb: str, **arguments: object) -> Any:
    """Send one verb to the daemon `pid`; MountError when it is not reachable or refuses."""
    for path in sockets(run_dir, pid=pid):
        if (daemon := _connect(path)) is not None:
            with daemon:
                return daemon.ask(verb, **arguments)
    raise MountError(f"the daemon (pid {pid}) has no control socket in {shown(run_dir)}")


def _why_no_daemon(mountpoint: bytes) -> str:
    """Explain by the mount table alone, since using the mount could hang."""
    where, record = shown(mountpoint), mounted_filesystem(mountpoint)
    if record is None or record.fstype != OWN_TYPE:
        return f"no overlayfs-py is mounted on {where}"
    if b"user_id=%d" % os.geteuid() not in record.super_options:
        return f"the overlay on {where} is another user's"
    return (
        f"the daemon of the overlay on {where} does not answer: unmount it if the daemon has exited, "
        "or name its run directory with --run-dir"
    )


def ask_all(run_dir: bytes, verb: str, failed: Callable[[str], None]) -> list[dict[str, Any]]:
    """Send one verb to every daemon; return the results by mount point, pass errors to `failed`."""
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
    """Connect; None for the socket of a killed daemon, which is removed; MountError when it does not
    accept.
    """
    try:
        connection = Connection(path)
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except OSError:
            pass
        return None
    except (TimeoutError, BlockingIOError):  # its backlog is full
        raise DaemonSilent(
            f"the daemon with the control socket {shown(path)} accepts no more connections"
        ) from None
    except OSError:
        return None
    if connection.uid not in (0, os.geteuid()) and os.geteuid() != 0:
        connection.close()
        return None  # another user's program took its place
    return connection
