"""Calls that come later: in their order, and by one thread however many they are."""

import threading
from collections.abc import Callable

from overlayfs_py.engine.native.alarm import Alarm


def test_calls_come_in_the_order_of_their_time() -> None:
    rung: list[int] = []
    done = threading.Event()

    def ring(call: Callable[[], None]) -> None:
        call()
        if len(rung) == 3:
            done.set()

    alarm = Alarm(ring)
    alarm.set(0.10, lambda: rung.append(2))
    alarm.set(0.10, lambda: rung.append(3))
    alarm.set(0.0, lambda: rung.append(0))
    assert done.wait(20)
    assert rung == [0, 2, 3]


def test_a_thousand_calls_are_one_thread() -> None:
    rung = threading.Semaphore(0)
    alarm = Alarm(lambda call: call())
    before = threading.active_count()
    for _ in range(1000):
        alarm.set(0.2, rung.release)
    assert threading.active_count() <= before + 1
    for _ in range(1000):
        assert rung.acquire(timeout=20)
