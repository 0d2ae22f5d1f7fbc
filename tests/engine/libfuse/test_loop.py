"""How pyfuse3's loop waits: a look, a short spin, then trio; and a lock that is quick when free."""

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

pytest.importorskip("pyfuse3")

from overlayfs_py.engine.libfuse import loop
from overlayfs_py.engine.libfuse.loop import RequestLoop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


async def test_a_request_that_is_there_is_taken_at_once(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    with trio.fail_after(5):
        await RequestLoop(lambda: None).wait_readable(pipe[0])


async def test_one_that_comes_later_ends_the_wait(pipe: tuple[int, int]) -> None:
    waiting = RequestLoop(lambda: None)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.wait_readable, pipe[0])
            await trio.testing.wait_all_tasks_blocked()
            os.write(pipe[1], b"x")


async def test_when_nothing_comes_what_is_kept_is_given_up_once(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no file of the upper stays open for writing on an idle mount."""
    monkeypatch.setattr(loop, "_REST", 0.0)
    rested = trio.Event()
    calls: list[bool] = []

    def rest() -> None:
        calls.append(True)
        rested.set()

    waiting = RequestLoop(rest)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.wait_readable, pipe[0])
            await rested.wait()
            await trio.testing.wait_all_tasks_blocked()
            os.write(pipe[1], b"x")
    assert calls == [True]


async def test_spinning_gets_shorter_while_nobody_is_in_a_hurry(pipe: tuple[int, int]) -> None:
    """And is as long as at first again once a request came in time."""
    waiting = RequestLoop(lambda: None)
    first = waiting._spin
    for _ in range(2):
        with trio.move_on_after(0.01):
            await waiting.wait_readable(pipe[0])
    assert waiting._spin < first


async def test_closing_reaches_a_reader_before_it_waits(pipe: tuple[int, int]) -> None:
    waiting = RequestLoop(lambda: None)
    waiting.notify_closing(pipe[0])
    with pytest.raises(trio.ClosedResourceError):
        await waiting.wait_readable(pipe[0])


async def test_the_lock_is_one_tasks_at_a_time() -> None:
    lock = RequestLoop(lambda: None).Lock()
    seen: list[str] = []

    async def hold(name: str) -> None:
        async with lock:
            seen.append(name)
            await trio.lowlevel.checkpoint()
            seen.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(hold, name)
    assert [seen[n] == seen[n + 1] for n in (0, 2, 4)] == [True] * 3
    assert lock.waiting == 0
