"""The gate of a frozen mount: what changes something waits, and goes on in order."""

import os
from typing import Any

import pytest
import trio
import trio.testing

from overlayfs_py.engine.base import CHANGING
from overlayfs_py.engine.libfuse.gate import Gate, gated


class Served:
    """Stands for the operations of a session."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.done: list[str] = []


async def _answer(served: Any, name: str, *rest: object) -> None:
    served.done.append(name)


async def test_closed_it_lets_nobody_in_and_later_all_in_order() -> None:
    served = Served()
    handler = gated("unlink", _answer)
    await served.gate.close()
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(handler, served, name)
            await trio.testing.wait_all_tasks_blocked()
        assert served.done == []
        assert served.gate.held == 3
        served.gate.open()
    assert served.done == ["first", "second", "third"]
    assert served.gate.held == 0


async def test_closing_waits_for_those_inside() -> None:
    """A freeze returns when nothing that changes anything is under way."""
    served = Served()
    inside, let_go = trio.Event(), trio.Event()

    async def slow(served: Any, name: str) -> None:
        inside.set()
        await let_go.wait()
        served.done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gated("mkdir", slow), served, "slow")
        await inside.wait()
        nursery.start_soon(served.gate.close)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(gated("mkdir", _answer), served, "late")
        await trio.testing.wait_all_tasks_blocked()
        assert served.done == []
        let_go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert served.done == ["slow"]
        served.gate.open()
    assert served.done == ["slow", "late"]


async def test_a_request_that_fails_has_left_the_gate() -> None:
    served = Served()

    async def failing(served: Any, name: str) -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        await gated("write", failing)(served, "x")
    with trio.fail_after(5):
        await served.gate.close()


async def test_one_that_waited_and_was_cancelled_keeps_nobody_out() -> None:
    served = Served()
    handler = gated("rename", _answer)
    await served.gate.close()
    with trio.move_on_after(0):
        await handler(served, "given up")
    served.gate.open()
    await handler(served, "next")
    assert served.done == ["next"]


@pytest.mark.parametrize("operation", ["lookup", "getattr", "read", "readdir", "statfs", *sorted(CHANGING)])
async def test_only_what_changes_something_is_held(operation: str) -> None:
    served = Served()
    await served.gate.close()
    with trio.move_on_after(0):
        await gated(operation, _answer)(served, operation)
    assert (served.done == []) == (operation in CHANGING)


@pytest.mark.parametrize(("flags", "held"), [(os.O_RDONLY, False), (os.O_RDWR, True), (os.O_TRUNC, True)])
async def test_an_open_is_held_when_it_writes(flags: int, held: bool) -> None:
    served = Served()

    async def opened(served: Any, nodeid: int, flags: int, ctx: object) -> None:
        served.done.append("opened")

    await served.gate.close()
    with trio.move_on_after(0):
        await gated("open", opened)(served, 1, flags, None)
    assert (served.done == []) == held
