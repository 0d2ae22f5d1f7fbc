"""Work done a little at a time: in turns, and its end is told whatever comes of it."""

from collections.abc import Iterator

import pytest

from overlayfs_py.engine.native import chores
from overlayfs_py.engine.native.chores import Chores


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each look at the clock is half a slice later."""
    now = [0.0]

    def tick() -> float:
        now[0] += chores._SLICE / 2
        return now[0]

    monkeypatch.setattr(chores, "perf_counter", tick)
    return now


def _steps(name: str, count: int, done: list[str]) -> Iterator[None]:
    for number in range(count):
        done.append(f"{name}{number}")
        yield


def test_several_take_turns() -> None:
    """The one that has waited longest is next, so a short one does not wait for a long one."""
    done: list[str] = []
    work = Chores()
    work.begin(_steps("a", 3, done))
    work.begin(_steps("b", 1, done))
    for _ in range(3):
        work.slice()
    assert done == ["a0", "b0", "a1"]


def test_a_slice_ends_when_its_time_is_up() -> None:
    done: list[str] = []
    work = Chores()
    work.begin(_steps("a", 100, done))
    work.slice()
    assert 0 < len(done) < 5
    assert work.pending


@pytest.mark.parametrize("broken", [False, True])
def test_the_end_is_told_when_it_failed_too(broken: bool) -> None:
    """Whoever wanted it tries again, and meets what is wrong."""

    def work() -> Iterator[None]:
        if broken:
            raise OSError(5, "broken")
        yield

    told: list[bool] = []
    chore = Chores()
    chore.begin(work(), lambda: told.append(True))
    while chore.pending:
        chore.slice()
    assert told == [True]


def test_what_is_under_way_can_be_given_up() -> None:
    done: list[str] = []
    work = Chores()
    work.begin(_steps("a", 3, done), lambda: done.append("told"))
    work.clear()
    assert not work.pending
    assert done == []
