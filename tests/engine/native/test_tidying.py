"""Memory is given back once a burst of forgetting is over."""

import threading
from collections.abc import Callable

import pytest

from overlayfs_py.engine.native import tidying
from overlayfs_py.engine.native.deferral import Deferrals
from overlayfs_py.engine.native.tidying import Tidying


def test_once_for_a_burst_by_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over: list[Callable[[], None]] = []
    given = []
    came = threading.Event()

    def wake() -> None:
        handed_over.append(lambda: deferrals.complete())
        came.set()

    deferrals = Deferrals(1, wake)
    monkeypatch.setattr(tidying, "_SECONDS", 0.05)
    monkeypatch.setattr(tidying, "give_back", lambda: given.append(threading.current_thread()))
    tidy = Tidying(deferrals.later)
    for _ in range(3):
        tidy.soon()
    assert came.wait(10)
    assert not given  # only the loop's thread may, which is this one here
    for then in handed_over:
        then()
    assert given == [threading.current_thread()]
    came.clear()
    tidy.soon()
    assert came.wait(10)
    deferrals.close()
