"""The background start, interrupted at the instants that no signal sent from outside can be aimed at."""

import os
import signal
import subprocess
import sys

import pytest

_STARTED = """
import os, signal, time
from overlayfs_py.service import background, report

fork, wait = os.fork, report.wait_for_report

def interrupted_fork():
    pid = fork()
    if pid:
        print(pid, flush=True)
        if WHEN == "fork":
            signal.raise_signal(signal.SIGINT)
    return pid

def wait_and_be_interrupted(fd, ended):
    wait(fd, ended)
    if WHEN == "ready":
        signal.raise_signal(signal.SIGINT)

os.fork = interrupted_fork
background.wait_for_report = wait_and_be_interrupted

def run(report):
    if WHEN != "fork":
        report.ready()
    time.sleep(20)
    return 0

try:
    background.start_in_background(run)
except KeyboardInterrupt:
    print("interrupted", flush=True)
if WHEN == "later":
    signal.raise_signal(signal.SIGINT)
"""


def started(when: str) -> tuple[int, int, bool]:
    """(exit status, the daemon's pid, whether it was interrupted)"""
    done = subprocess.run(
        [sys.executable, "-c", f"WHEN = {when!r}\n{_STARTED}"], stdout=subprocess.PIPE, timeout=15, text=True
    )
    pid, *said = done.stdout.split()
    return done.returncode, int(pid), said == ["interrupted"]


@pytest.mark.parametrize("when", ["fork", "ready"])
def test_interrupted_takes_the_daemon_along(when: str) -> None:
    """In fork(2) itself, too: then nobody knows its pid yet."""
    status, pid, interrupted = started(when)
    assert (status, interrupted) == (0, True)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_too_late_to_interrupt() -> None:
    """What is mounted stays, and the command says so by its exit status."""
    status, pid, interrupted = started("later")
    try:
        assert (status, interrupted) == (0, False)
    finally:
        os.kill(pid, signal.SIGKILL)
