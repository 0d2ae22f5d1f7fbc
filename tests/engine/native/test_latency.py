"""When the disk is left to a thread: one slow answer is no slow disk."""

import pytest

from overlayfs_py.engine.native.latency import LatencyAverage, Timed

SLOW = 20e-3


def test_latency_average_outlasts_an_exception() -> None:
    latency = LatencyAverage()

    def lost_after(*seconds: float) -> bool:
        for each in seconds:
            latency.record(each)
        return latency.is_slow

    assert not lost_after(1000)
    assert lost_after(SLOW)
    assert not lost_after(*[1e-4] * 20)


def test_a_quick_disk_stays_one() -> None:
    latency = LatencyAverage()
    for _ in range(1000):
        latency.record(1e-4)
    assert not latency.is_slow


def test_a_threads_work_is_timed_and_told_by_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the loop's thread touches what it decides by."""
    clock = [0.0]
    monkeypatch.setattr("overlayfs_py.engine.native.latency.perf_counter", lambda: clock[0])
    latency = LatencyAverage()
    work = Timed(lambda: clock.__setitem__(0, clock[0] + SLOW), latency)
    for _ in range(10):
        work()
        assert not latency.is_slow
    for _ in range(10):
        work.report()
    assert latency.is_slow
