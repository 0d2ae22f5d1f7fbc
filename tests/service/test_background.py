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
            signal.raise_signal(NUMBER)
    return pid

def wait_and_be_interrupted(fd, ended):
    wait(fd, ended)
    if WHEN == "ready":
        signal.raise_signal(NUMBER)

os.fork = interrupted_fork
background.wait_for_report = wait_and_be_interrupted

def run(report):
    if WHEN != "fork":
        report.ready()
    time.sleep(20)
    return 0

try:
    background.start_in_background(run)
except (KeyboardInterrupt, SystemExit):
    print("interrupted", flush=True)
if WHEN == "later":
    signal.raise_signal(NUMBER)
"""


def started(when: str, number: int) -> tuple[int, int, bool]:
    """(exit status, the daemon's pid, whether it was interrupted)"""
    script = f"WHEN, NUMBER = {when!r}, {number:d}\n{_STARTED}"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=15, text=True)
    pid, *said = done.stdout.split()
    return done.returncode, int(pid), said == ["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["fork", "ready"])
def test_interrupted_takes_the_daemon_along(when: str, number: int) -> None:
    """In fork(2) itself, too: then nobody knows its pid yet."""
    status, pid, interrupted = started(when, number)
    assert (status, interrupted) == (0, True)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_too_late_to_interrupt(number: int) -> None:
    """What is mounted stays, and the command says so by its exit status."""
    status, pid, interrupted = started("later", number)
    try:
        assert (status, interrupted) == (0, False)
    finally:
        os.kill(pid, signal.SIGKILL)
