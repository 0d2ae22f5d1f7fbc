"""The loop: one thread that reads a message, answers it and reads the next.

After an answer it polls for the next message for a while before it sleeps (adaptive polling; benchmarks:
stat, first; decision 0020): waking a thread costs more than an answer, and so does waking the client where
processors halt, a time that polling must span. Polling stops where it finds nothing, for longer where other
threads need the processor, and never begins where this process may use only one CPU. An idle mount sleeps in
poll(2).
"""

import errno
import logging
import os
import resource
import select
from collections.abc import Callable
from time import perf_counter

from overlayfs_py.engine.native.chores import Chores
from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest
from overlayfs_py.engine.native.dispatch import SessionEnd

log = logging.getLogger("overlayfs_py.engine.native")

# Seconds between messages that are frequent enough to keep processors awake.
_OFTEN = 2e-3
# Seconds without a message after which the union releases what it keeps for the next one.
_REST = 1.0

GONE = (errno.ENODEV, errno.ECONNABORTED)


class Polling:
    """How long to poll before sleeping: the full time while it finds messages, less and less while it does
    not.
    """

    __slots__ = ("_most", "_preempted", "_skipped", "window")

    _LEAST = 1e-6
    _PROBE_EVERY = 64
    _CROWDED = 1024  # sleeps
    _LATE = 5e-4  # seconds; a time slice of another thread is longer

    def __init__(self, seconds: float) -> None:
        self._most = self.window = seconds if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._skipped = 0
        self._preempted = 0

    def paid(self, seconds: float) -> None:
        """Polling found a message after `seconds`."""
        if seconds > self._most + self._LATE and self._is_crowded():
            self._yield()
        else:
            self.window = self._most

    def wasted(self, seconds: float) -> None:
        """Polling found no message in `seconds`."""
        if seconds > self._most + self._LATE and self._is_crowded():
            self._yield()
            return
        window = self.window / 2
        self.window = window if window > self._LEAST else 0.0
        self._skipped = 0

    def _is_crowded(self) -> bool:
        """Whether another thread had the processor; time that a hypervisor takes is no reason to sleep."""
        before, self._preempted = self._preempted, resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        return self._preempted > before

    def _yield(self) -> None:
        """Stop polling: other threads need the processor, and a sleeping thread gets it back earlier."""
        self.window = 0.0
        self._skipped = -self._CROWDED

    def slept(self) -> None:
        """The loop slept without polling; after a number of sleeps polling is tried again."""
        self._skipped += 1
        if self._skipped >= self._PROBE_EVERY:
            self._skipped = 0
            self.window = self._most


class Loop:
    """Reads `fuse_fd` (not owned) until the session ends or `stop` is called; `serve` gets buffer and length.

    `cpu_latency` (owned) is active while messages come often. While `working` is not 0, workers run, which
    need the interpreter more than polling does. `idle_work` does a little deferred work; False: there was
    none. `rest` is called once when no message has come for a second.
    """

    def __init__(
        self,
        fuse_fd: int,
        size: int,
        serve: Callable[[bytearray, int], None],
        complete: Callable[[], None],
        working: Callable[[], int],
        idle_work: Callable[[], bool],
        rest: Callable[[], None],
        polling: Polling,
        cpu_latency: CpuLatencyRequest,
        chores: Chores,
    ) -> None:
        self._fd = fuse_fd
        self._buffer = bytearray(size)
        self._parts = [memoryview(self._buffer)]
        self._serve = serve
        self._complete = complete
        self._working = working
        self._idle_work = idle_work
        self._rest = rest
        self._polling = polling
        self._cpu_latency = cpu_latency
        self._chores = chores
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._woken = False
        self._stopping = False
        self._poll = select.poll()
        self._poll.register(fuse_fd, select.POLLIN)
        self._poll.register(self._wake_fd, select.POLLIN)
        os.set_blocking(fuse_fd, False)

    def run(self) -> None:
        """Serve until the session ends or `stop`; SessionEnd when it could not begin."""
        while not self._stopping:
            length = self._receive()
            if length > 0:
                self._serve(self._buffer, length)
            elif length < 0:
                return
            if self._woken:
                self._woken = False
                self._complete()
            if self._chores.pending:
                self._chores.slice()

    def wake(self) -> None:
        """Make `run` call `complete` soon; callable from any thread."""
        self._woken = True
        os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """Make `run` return soon; callable from any thread."""
        self._stopping = True
        self.wake()

    def close(self) -> None:
        """Close the descriptors of the loop, not `fuse_fd`; idempotent."""
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1
            self._cpu_latency.close()

    def _receive(self) -> int:
        """Return the length of the next message; 0: woken without one, -1: the session has ended."""
        if self._chores.pending:
            return self._read()
        window = self._polling.window
        if window and not self._working():
            length = self._poll_for(window)
            if length or self._woken:
                return length
        elif not window:
            self._polling.slept()
        length = self._read()
        while not length and not self._woken and self._idle_work():
            length = self._read()
        return length or self._sleep()

    def _poll_for(self, window: float) -> int:
        """Poll for `window` seconds or until woken; 0: no message."""
        start = perf_counter()
        seconds = 0.0
        while not self._woken:
            length = self._read()
            if length:
                self._polling.paid(seconds)
                self._cpu_latency.start()
                return length
            seconds = perf_counter() - start
            if seconds > window:
                self._polling.wasted(seconds)
                break
        return 0

    def _sleep(self) -> int:
        """Sleep until there is a message or the loop is woken; processors stay awake while messages come
        often.
        """
        ready = self._poll.poll(_OFTEN * 1e3) if self._cpu_latency.active else []
        if not ready:
            self._cpu_latency.stop()
            start = perf_counter()
            ready = self._wait()
            if perf_counter() - start < _OFTEN:
                self._cpu_latency.start()
        for fd, _ in ready:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
                return 0
        return self._read()

    def _wait(self) -> list[tuple[int, int]]:
        """Wait without limit; an idle mount wakes up once, to call `rest`."""
        ready = self._poll.poll(_REST * 1e3)
        if ready:
            return ready
        self._rest()
        return self._poll.poll()

    def _read(self) -> int:
        try:
            return os.readv(self._fd, self._parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in GONE:
                return -1
            if error.errno in (errno.EINTR, errno.ENOENT):  # interrupted before we read it
                return 0
            raise


__all__ = ["GONE", "Loop", "Polling", "SessionEnd"]
