"""End a daemon, and name the processes that use its mount when it does not end with the unmount."""

import os
import time
from contextlib import suppress

from overlayfs_py.errors import MountError
from overlayfs_py.service import client
from overlayfs_py.service.keepers import describe, keepers, mounts_here
from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.fusectl import abort_connection

_SOON = 0.2  # most daemons have ended by then, so that no search is needed
_LOOK_EVERY = 1.0
_FORCE_SECONDS = 30.0


class Ending:
    """A daemon that should end; a context manager, which owns a pidfd.

    `connection`: that of its mount, None when unknown; `place`: its mount in messages; `remedy`: the command
    that ends the daemon even if its mount is in use. ProcessLookupError when there is no such process.
    """

    def __init__(self, pid: int, connection: int | None, *, place: str, remedy: str) -> None:
        self.pid = pid
        self.connection = connection
        self._place = place
        self._remedy = remedy
        self._pid_fd = os.pidfd_open(pid)

    def __enter__(self) -> "Ending":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pid_fd)

    def wait(self, seconds: float | None = None) -> str | None:
        """Wait until the daemon has ended; return early with a remark when other processes use its mount.

        MountError when it takes longer than `seconds`: the daemon is still writing.
        """
        end = None if seconds is None else time.monotonic() + seconds
        pause = _SOON
        while not processes.wait_readable(self._pid_fd, pause):
            pause = _LOOK_EVERY
            if kept := self.kept():
                return f"{self._place} is unmounted here{kept}"
            if end is not None and time.monotonic() > end:
                busy = f"its daemon (pid {self.pid}) is still busy after {seconds:g} s"
                raise MountError(f"{self._place} is unmounted, but {busy}")
        return None

    def kept(self) -> str:
        """Return the rest of a sentence that names the processes using the mount; empty when there
        are none.
        """
        found = keepers(self.connection, besides=[self.pid]) if self.connection is not None else []
        if not found:
            return ""
        remedy = f"end that process, or run {self._remedy}"
        return f", but its daemon (pid {self.pid}) still serves {describe(found)}: {remedy}"

    def is_shown_here(self) -> bool:
        """Whether it is mounted in this mount namespace; True when that is unknown."""
        return self.connection is None or bool(mounts_here(self.connection))

    def force(self, run_dir: bytes) -> None:
        """End the daemon even if its mount is in use: by a request, else by aborting its FUSE connection.

        MountError when it does not end.
        """
        try:
            client.ask_daemon(run_dir, self.pid, "umount", force=True)
        except client.DaemonEnded:
            return
        except MountError:
            self._abort()
        end = time.monotonic() + _FORCE_SECONDS
        while not processes.wait_readable(self._pid_fd, _LOOK_EVERY):
            stopped = processes.is_stopped(self.pid)
            if stopped or time.monotonic() > end:
                self._abort()
                what = f"is stopped: continue it (kill -CONT {self.pid})" if stopped else "is still there"
                raise MountError(
                    f"{self._place}: its connection is aborted, but its daemon (pid {self.pid}) {what}"
                )

    def _abort(self) -> None:
        try:
            with suppress(FileNotFoundError):
                if self.connection is not None:
                    abort_connection(self.connection)
        except OSError as error:
            raise MountError(
                f"{self._place}: its daemon (pid {self.pid}) does not answer, and aborting its connection "
                f"failed: {error.strerror}; kill -9 {self.pid} ends it"
            ) from error
