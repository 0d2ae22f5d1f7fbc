"""Answers that come later: what takes long runs in a worker thread while the loop answers others.

Only the loop's thread touches the union. A worker is given something that needs none of it (bytes between
two descriptors, an fsync); what follows is done by the loop once the worker has finished.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from overlayfs_py.engine.native.alarm import Alarm
from overlayfs_py.union.overlay import Node

log = logging.getLogger("overlayfs_py.engine.native")

# `settle` is called by the loop with the worker's error or None. It returns the answer, or None: do the
# request again, which now finds everything prepared.
Settle = Callable[[BaseException | None], bytes | None]


class _Frozen:
    """What the changing requests of a frozen mount wait for, as others wait for a node."""


FROZEN = _Frozen()


class Chore:
    """What requests wait for that want something the loop does little by little (`chores`)."""


Awaited = Node | _Frozen | Chore


class Postponed(Exception):
    """Raised by a handler that has changed nothing yet. `node`: other requests that change it must wait."""

    def __init__(self, work: Callable[[], object], settle: Settle, *, node: Node | None = None) -> None:
        super().__init__("answered later")
        self.work = work
        self.settle = settle
        self.node = node

    @classmethod
    def on(cls, fds: list[int], work: Callable[[], object], answer: Callable[[], bytes]) -> "Postponed":
        """`work` on descriptors that are closed afterwards; `answer` is called when it has succeeded."""

        def settle(error: BaseException | None) -> bytes:
            for fd in fds:
                os.close(fd)
            if error is not None:
                raise error
            return answer()

        return cls(work, settle)


class Busy(Exception):
    """Raised by a handler: `node` is being copied up, so the request has to be done again afterwards."""

    def __init__(self, node: Awaited) -> None:
        super().__init__("waits for a copy-up, for a chore, or for the thaw")
        self.node = node


class Deferrals:
    """The work under way. All methods but `call` and `later` belong to the loop's thread."""

    def __init__(self, threads: int, wake: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="overlay-copy")
        self._wake = wake
        self._alarm = Alarm(self.call)
        self._calls: deque[Callable[[], None]] = deque()
        self._when_idle: list[Callable[[], None]] = []
        self._when_any: list[Callable[[], None]] = []
        self._after: dict[Awaited, list[Callable[[], None]]] = {}
        self._open: set[int] = set()  # unique of the requests that are answered later
        self._closed = False
        self.running = 0

    @property
    def copies(self) -> int:
        """Copy-ups under way."""
        return sum(isinstance(awaited, Node) for awaited in self._after)

    @property
    def held(self) -> int:
        """Requests that wait for the thaw."""
        return len(self._after.get(FROZEN, ()))

    def busy(self, node: Node) -> bool:
        return node in self._after

    def after(self, node: Awaited, then: Callable[[], None]) -> None:
        """Call `then` once the copy-up of `node` is over."""
        self._after[node].append(then)

    def hold(self, awaited: Awaited = FROZEN) -> None:
        """Let requests wait `after` it, until its `release`; idempotent."""
        self._after.setdefault(awaited, [])

    def start(
        self,
        work: Callable[[], object],
        then: Callable[[BaseException | None], None],
        node: Node | None = None,
    ) -> None:
        """Run `work` in a thread, `then` on the loop's with what it raised; keeps `node` busy meanwhile."""
        if node is not None:
            self._after[node] = []
        self.running += 1

        def finished(future: "Future[object]") -> None:
            self.call(lambda: self._finish(then, future.exception()))

        self._submit(work).add_done_callback(finished)

    def _submit(self, work: Callable[[], object]) -> "Future[object]":
        """After `close` it is done at once: what waited for the last workers may itself want one."""
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
        """Have the loop's thread call `then` between two requests; from any thread."""
        self._calls.append(then)
        self._wake()

    def later(self, seconds: float, then: Callable[[], None]) -> None:
        """`call` it after so many seconds, if there still is a loop; from any thread."""
        self._alarm.set(seconds, then)

    def after_any(self, then: Callable[[], None]) -> None:
        """Call `then` once any of the workers that run now has finished."""
        self._when_any.append(then)

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as no worker runs, which may be at the end of `complete`."""
        self._when_idle.append(then)

    def complete(self) -> None:
        """Do what follows the work that is done."""
        while self._calls:
            self._calls.popleft()()
        if self._when_idle and not self.running:
            idle, self._when_idle = self._when_idle, []
            for then in idle:
                then()

    def release(self, node: Awaited | None) -> list[Callable[[], None]]:
        """The work that kept `node` busy is settled: what has to be called, in this order."""
        return [] if node is None else self._after.pop(node)

    def expect(self, unique: int) -> None:
        """The request `unique` is answered later."""
        self._open.add(unique)

    def claim(self, unique: int) -> bool:
        """Take over the answering of `unique`; False when it was answered meanwhile (interrupted)."""
        if unique not in self._open:
            return False
        self._open.remove(unique)
        return True

    def close(self) -> None:
        """Wait for the workers."""
        self._closed = True
        self._pool.shutdown(wait=True)
