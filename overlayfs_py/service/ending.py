"""Ending a daemon, and telling who keeps it when it does not end with its mount."""

import os
import time
from contextlib import suppress

from overlayfs_py.errors import MountError
from overlayfs_py.service import client
from overlayfs_py.service.keepers import keepers, said, shown_here
from overlayfs_py.syscalls import processes
from overlayfs_py.syscalls.fusectl import abort_connection

_SOON = 0.2  # most daemons have ended by then, and nobody need be looked for
_LOOK_EVERY = 1.0
_FORCE_SECONDS = 30.0


class Ending:
    """One daemon that is to end; a context manager, which owns the descriptor that waits for that.

    `connection`: of its mount, None when nobody knows; `place` is its mount in messages, `remedy` the command
    that ends it whoever keeps it. ProcessLookupError when there is no such process.
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
        """Return once it has ended; at once with a remark when somebody keeps it though it is unmounted here.

        MountError when that takes longer than `seconds`: it is still writing.
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
        """The rest of a sentence: who keeps it; empty when nobody does."""
        found = keepers(self.connection, besides=[self.pid]) if self.connection is not None else []
        if not found:
            return ""
        return f", but its daemon (pid {self.pid}) goes on for {said(found)}: end that, or {self._remedy}"

    def is_shown_here(self) -> bool:
        """Whether it is mounted in this mount namespace, as far as anybody knows."""
        return self.connection is None or bool(shown_here(self.connection))

    def force(self, run_dir: bytes) -> None:
        """End it, whoever uses its mount: by a request, and by an abort of its connection when it is silent.

        MountError when it lives on.
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
                f"{self._place}: its daemon (pid {self.pid}) does not answer, and its connection cannot be "
                f"aborted: {error.strerror}; kill -9 {self.pid} ends it"
            ) from error
