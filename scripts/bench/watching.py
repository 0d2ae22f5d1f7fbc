"""The descriptors and memory of a daemon: the maximum during work, and the value once it is idle again."""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import report

_EVERY = 0.2
_CALM = 3.0  # seconds without change; giving back begins a second after the forgets
_PATIENCE = 60.0


class Watch:
    """Samples a process several times a second while the context is open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch")
        self.descriptors_most = self.descriptors_after = 0
        self.memory_most = self.memory_after = 0.0
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(_EVERY):
            with contextlib.suppress(OSError):
                self.descriptors_most = max(self.descriptors_most, self._descriptors())
                self.memory_most = max(self.memory_most, self._memory("VmHWM"))

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def _memory(self, field: str) -> float:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        return 0.0

    def calm_down(self) -> None:
        """Make the kernel forget all inodes, and wait until the daemon's figures no longer fall."""
        Path("/proc/sys/vm/drop_caches").write_text("2")
        deadline, since = time.monotonic() + _PATIENCE, time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < min(deadline, since + _CALM):
                now = self._descriptors(), self._memory("VmRSS")
                if now != (self.descriptors_after, self.memory_after):
                    self.descriptors_after, self.memory_after = now
                    since = time.monotonic()
                time.sleep(_EVERY)

    def read_log(self, log: Path) -> None:
        """Every line that a daemon in the foreground has written, but for its greeting, is a complaint."""
        lines = log.read_text(errors="replace").splitlines()
        self.complaints = [line for line in lines if not line.startswith("<6>") and " on " not in line]

    def cells(self) -> list[str]:
        """Descriptors at most and at the end, MiB at most and at the end, lines of complaint."""
        descriptors = [f"{self.descriptors_most:,}", f"{self.descriptors_after:,}"]
        memory = [report.digits(self.memory_most), report.digits(self.memory_after)]
        return [*descriptors, *memory, str(len(self.complaints))]
