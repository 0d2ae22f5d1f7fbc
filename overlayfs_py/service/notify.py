"""sd_notify(3): READY once the mount answers, STATUS, STOPPING, and WATCHDOG while the mount answers."""

import os
from collections.abc import Awaitable, Callable

import trio
from sdnotify import SystemdNotifier

from overlayfs_py.errors import for_people

# Two pings in systemd's time, so that one may be late.
_PINGS_PER_TIMEOUT = 2


class Notifier:
    """Reports to the service manager; does nothing when none started this process."""

    def __init__(self, *, enabled: bool, watchdog: float) -> None:
        self._notifier = SystemdNotifier() if enabled else None
        self._watchdog = watchdog if enabled else 0.0

    def ready(self, status: str) -> None:
        self._notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={for_people(status)}")

    def stopping(self, status: str) -> None:
        self._notify(f"STOPPING=1\nSTATUS={status}")

    async def ping_while(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """Ping the watchdog for as long as `answers`; return at once when there is no watchdog."""
        if not self._watchdog:
            return
        pause = self._watchdog / _PINGS_PER_TIMEOUT
        while True:
            with trio.move_on_after(pause):
                if await answers():
                    self._notify("WATCHDOG=1")
            await trio.sleep(pause)

    def _notify(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state.encode("latin-1", "replace").decode("latin-1"))
