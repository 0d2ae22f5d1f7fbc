"""sd_notify(3): READY only when the mount answers, STATUS, STOPPING, WATCHDOG while it goes on answering."""

import os
from collections.abc import Awaitable, Callable

import trio
from sdnotify import SystemdNotifier

from overlayfs_py.errors import for_people

# Two chances to be seen within systemd's time.
_PINGS_PER_TIMEOUT = 2


class Notifier:
    """Talks to the service manager, or to nobody when it did not start this process."""

    def __init__(self, *, enabled: bool, watchdog: float) -> None:
        self._notifier = SystemdNotifier() if enabled else None
        self._watchdog = watchdog if enabled else 0.0

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={for_people(status)}")

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={status}")

    async def ping_while(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """Sign of life as long as `answers`; returns at once when nobody waits for one."""
        if not self._watchdog:
            return
        pause = self._watchdog / _PINGS_PER_TIMEOUT
        while True:
            with trio.move_on_after(pause):
                if await answers():
                    self._tell("WATCHDOG=1")
            await trio.sleep(pause)

    def _tell(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state.encode("latin-1", "replace").decode("latin-1"))
