"""Answers that come later: in which order, by which thread, and never twice."""

import threading
from collections.abc import Iterator

import pytest

from overlayfs_py.engine.native.deferral import FROZEN, Chore, Deferrals


@pytest.fixture
def woken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def deferrals(woken: threading.Event) -> Iterator[Deferrals]:
    made = Deferrals(2, woken.set)
    yield made
    made.close()


def _complete(deferrals: Deferrals, woken: threading.Event) -> None:
    while deferrals.running:
        assert woken.wait(10)
        woken.clear()
        deferrals.complete()


def test_work_is_a_threads_and_what_follows_the_loops(deferrals: Deferrals, woken: threading.Event) -> None:
    """Only `complete` calls what follows, so the union stays with one thread."""
    threads: list[str] = []
    deferrals.start(
        lambda: threads.append(threading.current_thread().name),
        lambda error: threads.append(threading.current_thread().name),
    )
    _complete(deferrals, woken)
    assert threads[0].startswith("overlay-copy")
    assert threads[1] == threading.current_thread().name


def test_an_error_reaches_what_follows(deferrals: Deferrals, woken: threading.Event) -> None:
    errors: list[BaseException | None] = []

    def fail() -> None:
        raise OSError(28, "full")

    deferrals.start(fail, errors.append)
    _complete(deferrals, woken)
    assert [type(error) for error in errors] == [OSError]


def test_who_waits_goes_on_in_the_order_of_coming(deferrals: Deferrals) -> None:
    done: list[int] = []
    chore = Chore()
    deferrals.hold(chore)
    deferrals.hold(chore)  # idempotent: those who wait already stay
    for number in range(3):
        deferrals.after(chore, lambda number=number: done.append(number))  # type: ignore[misc]
    for then in deferrals.release(chore):
        then()
    assert done == [0, 1, 2]


def test_requests_of_a_frozen_mount_are_counted(deferrals: Deferrals) -> None:
    """`overlayfs-pyctl status` says how many the freeze holds; they are no copies."""
    deferrals.hold()
    deferrals.after(FROZEN, lambda: None)
    assert (deferrals.held, deferrals.copies) == (1, 0)
    deferrals.release(FROZEN)
    assert deferrals.held == 0


def test_a_request_is_answered_once(deferrals: Deferrals) -> None:
    """By its work or by an interrupt, whichever comes first."""
    deferrals.expect(7)
    assert deferrals.claim(7)
    assert not deferrals.claim(7)


def test_when_idle_waits_for_the_last_worker(deferrals: Deferrals, woken: threading.Event) -> None:
    done: list[str] = []
    going = threading.Event()
    deferrals.start(lambda: going.wait(10), lambda error: done.append("work"))
    deferrals.when_idle(lambda: done.append("idle"))
    deferrals.complete()
    assert done == []
    going.set()
    _complete(deferrals, woken)
    assert done == ["work", "idle"]


def test_after_close_work_is_done_at_once(deferrals: Deferrals) -> None:
    """What waited for the last workers may itself want one; there is nobody else to do it."""
    deferrals.close()
    done: list[str] = []
    deferrals.start(lambda: done.append("work"), lambda error: done.append("then"))
    assert done == ["work"]
    deferrals.complete()
    assert done == ["work", "then"]
