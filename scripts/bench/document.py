"""The conditions of a run, and the place of its tables in a document."""

import os
import subprocess
import sys
import time
from pathlib import Path

DRAW = Path(__file__).resolve().parents[1] / "draw"


def counted(rounds: int) -> str:
    return f"{rounds} round{'s' if rounds > 1 else ''}"


def conditions(command: str, rounds: str, seconds: float, versions: str) -> str:
    """What was measured, where and how: one line each."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "unknown")
    machine = f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return (
        f"Command: `{command}`, {when} UTC, {rounds} in {seconds / 60:.1f} min: medians (lowest–highest).\n"
        f"Machine: {machine}; load average at the end {load}.\nVersions: {versions}."
    )


def check_marks(path: Path, name: str, begin: str, end: str) -> None:
    """SystemExit where `path` has no place for `name`, or more than one."""
    text = path.read_text()
    if text.count(begin) != 1 or end not in text.partition(begin)[2]:
        raise SystemExit(f"bench: {path} must have one pair of marks for {name}: {begin} and {end}")


def write_between_marks(path: Path, name: str, begin: str, end: str, text: str) -> None:
    """Replace the text between the marks of `name`. At any instant, even if this is killed, `path` is the old
    file or the new one.
    """
    check_marks(path, name, begin, end)
    head, rest = path.read_text().split(begin, 1)
    _, tail = rest.split(end, 1)
    new = path.with_name(f".{path.name}.new")
    new.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
    new.replace(path)


def redraw(path: Path) -> None:
    """Make the plots beside `path`, and its table of goals, from its tables."""
    subprocess.run([DRAW, path], check=True)
