"""Delayed answers: long work runs in a worker thread while the loop answers other requests.

Only the loop's thread touches the union. Workers do what needs no union (copy bytes between two descriptors,
fsync); the loop does the rest once a worker has finished.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from overlayfs_py.engine.native.alarm import Alarm
from overlayfs_py.union.overlay import Node

log = logging.getLogger("overlayfs_py.engine.native")

# The loop calls `settle` with the worker's error or None. It returns the answer, or None: repeat the request,
# which now finds everything prepared.
Settle = Callable[[BaseException | None], bytes | None]


class _Frozen:
    """What changing requests of a frozen mount wait for."""


FROZEN = _Frozen()


class Chore:
    """What requests wait for that need a chore of the loop (`chores`)."""


Awaited = Node | _Frozen | Chore


class Postponed(Exception):
    """Raised by a handler to continue in a thread; it has changed nothing yet. `node`: others must wait for
    it.
    """

    def __init__(self, work: Callable[[], object], settle: Settle, *, node: Node | None = None) -> None:
        super().__init__("the answer follows later")
        self.work = work
        self.settle = settle
        self.node = node

    @classmethod
    def on(cls, fds: list[int], work: Callable[[], object], answer: Callable[[], bytes]) -> "Postponed":
        """Do `work` on `fds`, which are closed afterwards; `answer` makes the answer after success."""

        def settle(error: BaseException | None) -> bytes:
            for fd in fds:
                os.close(fd)
            if error is not None:
                raise error
            return answer()

        return cls(work, settle)


class Busy(Exception):
    """Raised by a handler: `node` is being copied up; the request is repeated afterwards."""

    def __init__(self, node: Awaited) -> None:
        super().__init__("waits for a copy-up, a chore or a thaw")
        self.node = node


class Deferrals:
    """The work in progress. Only `call` and `later` may be called from other threads than the loop's."""

    def __init__(self, threads: int, wake: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="overlay-copy")
        self._wake = wake
        self._alarm = Alarm(self.call)
        self._calls: deque[Callable[[], None]] = deque()
        self._when_idle: list[Callable[[], None]] = []
        self._when_any: list[Callable[[], None]] = []
        self._after: dict[Awaited, list[Callable[[], None]]] = {}
        self._open: set[int] = set()  # the `unique` of requests whose answer follows
        self._closed = False
        self.running = 0

    @property
    def copies(self) -> int:
        """How many copy-ups are in progress."""
        return sum(isinstance(awaited, Node) for awaited in self._after)

    @property
    def held(self) -> int:
        """How many requests wait until the mount is thawed."""
        return len(self._after.get(FROZEN, ()))

    def busy(self, node: Node) -> bool:
        return node in self._after

    def after(self, node: Awaited, then: Callable[[], None]) -> None:
        """Call `then` once the copy-up of `node` has ended."""
        self._after[node].append(then)

    def hold(self, awaited: Awaited = FROZEN) -> None:
        """Make requests that wait `after` it wait until its `release`; idempotent."""
        self._after.setdefault(awaited, [])

    def start(
        self,
        work: Callable[[], object],
        then: Callable[[BaseException | None], None],
        node: Node | None = None,
    ) -> None:
        """Run `work` in a thread, then `then(error)` in the loop's; `node` is busy meanwhile."""
        if node is not None:
            self._after[node] = []
        self.running += 1

        def finished(future: "Future[object]") -> None:
            self.call(lambda: self._finish(then, future.exception()))

        self._submit(work).add_done_callback(finished)

    def _submit(self, work: Callable[[], object]) -> "Future[object]":
        """Run `work` in a worker; after `close` at once, since requests that waited may start more work."""
        if not self._closed:
            return self._pool.submit(work)
        future: Future[object] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future

    def _finish(self, then: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        self.running -= 1
        then(error)
        waiting, self._when_any = self._when_any, []
        for again in waiting:
            again()

    def call(self, then: Callable[[], None]) -> None:
        """Let the loop's thread call `then` between two requests; callable from any thread."""
        self._calls.append(then)
        self._wake()

    def later(self, seconds: float, then: Callable[[], None]) -> None:
        """As `call`, after so many seconds and if the loop still runs; callable from any thread."""
        self._alarm.set(seconds, then)

    def after_any(self, then: Callable[[], None]) -> None:
        """Call `then` once one of the running workers has finished."""
        self._when_any.append(then)

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as no worker runs, at the earliest at the end of `complete`."""
        self._when_idle.append(then)

    def complete(self) -> None:
        """Make the calls that are due."""
        while self._calls:
            self._calls.popleft()()
        if self._when_idle and not self.running:
            idle, self._when_idle = self._when_idle, []
            for then in idle:
                then()

    def release(self, node: Awaited | None) -> list[Callable[[], None]]:
        """End the wait for `node`: return the calls that are due now, in order."""
        return [] if node is None else self._after.pop(node)

    def expect(self, unique: int) -> None:
        """Note that the answer to the request `unique` follows later."""
        self._open.add(unique)

    def claim(self, unique: int) -> bool:
        """Take over the answer to `unique`; False when it was interrupted and so answered meanwhile."""
        if unique not in self._open:
            return False
        self._open.remove(unique)
        return True

    def close(self) -> None:
        """Wait until all workers have finished."""
        self._closed = True
        self._pool.shutdown(wait=True)
