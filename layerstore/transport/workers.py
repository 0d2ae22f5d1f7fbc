"""Run tasks in several threads: the first failure stops the others, and so does an interruption."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from layerstore.transport.base import Stop
from layerstore.transport.errors import Stopped

_GRACE = 5.0  # seconds for the others to notice a failure

Task = Callable[[], None]


def run_all(tasks: Sequence[Task], jobs: int, stop: Stop) -> None:
    """Run all tasks, `jobs` at a time, in their order; raise the first failure.

    The threads are daemons and need no cleaning up, as the next transfer resumes what this one leaves: an
    interruption does not wait for a stuck connection.
    """
    pending: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        pending.put(task)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_work, args=(pending, ended, stop), name=f"transfer {number}", daemon=True)
        for number in range(min(jobs, len(tasks)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            failure = ended.get()
            if failure is not None:
                raise failure
    except BaseException as error:
        stop.set()
        if isinstance(error, Exception):
            for thread in threads:
                thread.join(_GRACE)
        raise


def _work(
    pending: queue.SimpleQueue[Task], ended: queue.SimpleQueue[BaseException | None], stop: Stop
) -> None:
    try:
        while True:
            try:
                task = pending.get_nowait()
            except queue.Empty:
                break
            stop.check()
            task()
    except Stopped:
        ended.put(None)
    except BaseException as error:
        ended.put(error)
    else:
        ended.put(None)
