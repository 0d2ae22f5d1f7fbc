"""Children are ended by whatever interrupts their parent, also in the midst of their start."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from overlayfs_py.service import subprocesses

_SLEEP = [sys.executable, "-c", "import time; time.sleep(30)"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(30)",
]


class Interrupted(BaseException):
    """What the handler raises."""


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP], autouse=True)
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that raises here."""
    before = signal.signal(request.param, _raise)
    yield request.param
    signal.signal(request.param, before)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """Every process that Popen() starts, as soon as it is one."""
    processes: list[subprocess.Popen[bytes]] = []

    class Known(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **settings: Any) -> None:
            super().__init__(*words, **settings)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Known)
    return processes


def during_the_start(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Run `action` when the child exists and Popen() has not returned."""
    start = subprocess.Popen

    def interrupted(*words: Any, **settings: Any) -> "subprocess.Popen[bytes]":
        process = start(*words, **settings)
        action()
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)


def assert_ended(process: "subprocess.Popen[bytes]", by: int) -> None:
    assert process.returncode == -by
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_interrupted_while_it_starts(
    started: list["subprocess.Popen[bytes]"], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    during_the_start(monkeypatch, lambda: signal.raise_signal(number))
    with pytest.raises(Interrupted), subprocesses.running(_SLEEP):
        pytest.fail("the interruption was lost")
    assert_ended(started[0], signal.SIGTERM)


def test_interrupted_while_it_runs(number: int) -> None:
    with pytest.raises(Interrupted), subprocesses.running(_SLEEP) as process:
        signal.raise_signal(number)
    assert_ended(process, signal.SIGTERM)


def test_a_stubborn_child_is_killed(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(subprocesses, "_END_SECONDS", 0.2)
    with pytest.raises(Interrupted), subprocesses.running(_STUBBORN, stdout=subprocess.PIPE) as process:
        interrupt_when_ready(process, number)
    assert process.stdout
    process.stdout.close()
    assert_ended(process, signal.SIGKILL)


def interrupt_when_ready(process: "subprocess.Popen[Any]", number: int) -> None:
    assert process.stdout
    process.stdout.readline()
    signal.raise_signal(number)


def test_nothing_happens_to_one_that_is_done_with(number: int) -> None:
    with subprocesses.running([sys.executable, "-c", ""]) as process:
        assert process.wait(20) == 0


def test_a_child_inherits_no_mask(number: int) -> None:
    """What is put off concerns the parent alone."""
    with subprocesses.running(_SLEEP) as process:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        assert int(status["SigBlk"], 16) == 0
        process.kill()
        process.wait()


def test_what_is_ignored_stays_ignored(number: int) -> None:
    """As under nohup(1): no handler comes in its place, not even for an instant."""
    signal.signal(number, signal.SIG_IGN)
    with subprocesses.postponed():
        assert signal.getsignal(number) is signal.SIG_IGN


def test_it_is_told_when_the_block_is_over(number: int) -> None:
    done: list[int] = []

    def work() -> None:
        signal.raise_signal(number)
        done.append(number)

    with pytest.raises(Interrupted), subprocesses.postponed():
        work()
    assert done
    assert signal.getsignal(number) is _raise


def test_all_handlers_are_back_when_one_raises() -> None:
    before = [signal.signal(other, _raise) for other in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(Interrupted), subprocesses.postponed():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is _raise
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    finally:
        for other, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(other, handler)


def test_pipes_are_closed(number: int) -> None:
    with pytest.raises(Interrupted), subprocesses.running(_SLEEP, stdout=subprocess.PIPE) as process:
        signal.raise_signal(number)
    assert process.stdout is not None
    assert process.stdout.closed
