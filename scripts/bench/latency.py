"""How long another client's first stat takes while a 2 GiB file is copied up, and while a directory of
100,000 names is listed and changed.
"""

import contextlib
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import operations
import report
from complaints import alarm, complaints
from contenders import Contender, mounted
from material import big_files, write_files
from report import Samples
from scale import files, patience
from stage import Stage, fresh_stage, make_template

SIZE_MIB = 2048
HUGE = files(100_000)
NAMES = operations.file_names(files(40_000))
CALM, BESIDE = 2000, len(NAMES) // 2  # looked at first; those up to here beside the copy
PAUSE = 0.0005
SECONDS = patience(240)
COPY, CHANGES = "the copy-up", "listing and changing 100,000 names"
ROWS = [
    *(
        (f"stat, {when}, {what}", "ms")
        for when in ("alone", "during the copy-up", "beside 100,000 names")
        for what in ("p50", "p99", "max")
    ),
    (COPY, "s"),
    (CHANGES, "s"),
]


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """Median, 99th percentile and maximum, alone and beside the copy."""
    samples: Samples = defaultdict(list)
    template = make_template(base, fill)
    taking_part = [contender for contender in contenders if not contender.only]
    for number in range(rounds):
        for contender in taking_part:
            print(f"bench: latency: round {number + 1}/{rounds}: {contender.name}", file=sys.stderr)
            with fresh_stage(base, template) as stage, complaints(contender, "mount"):
                report.merge(samples, measure(contender, stage), contender.name)
    template.unlink()
    return report.figures(samples, ROWS, [contender.name for contender in taking_part])


def fill(disk: Path) -> None:
    lower = disk / "lower"
    big_files(SIZE_MIB, "big")(lower)
    write_files(lower / "names", len(NAMES), b"")
    write_files(lower / "huge", HUGE, b"")


def measure(contender: Contender, stage: Stage) -> dict[str, float]:
    """A figure for each of ROWS."""
    top = stage.mountpoint
    with mounted(contender, stage), alarm(SECONDS), contextlib.chdir(top / "names"):
        found = percentiles("alone", latencies(NAMES[:CALM]))
        during, found[COPY] = beside(lambda: operations.append_all([str(top / "big")]), NAMES[CALM:BESIDE])
        found |= percentiles("during the copy-up", during)
        during, found[CHANGES] = beside(lambda: list_and_change(top / "huge"), NAMES[BESIDE:])
        return found | percentiles("beside 100,000 names", during)


def beside(work: Callable[[], object], names: list[str]) -> tuple[list[float], float]:
    """The latencies of `names` while a child does `work`, and how many seconds that took."""
    child, done = start(work)
    try:
        begin = time.perf_counter()
        during = latencies(names, until=done)
        while not ended(done):  # it outlasted the names
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
    finally:
        if not ended(done):  # a stat failed, or the alarm rang
            os.kill(child, signal.SIGKILL)
        os.close(done)
        status = os.waitpid(child, 0)[1]
    if status:
        raise OSError("what the other client did has failed")
    return during, seconds


def list_and_change(directory: Path) -> None:
    """Look up, list, make, remove: each once before and once after the directory is listed."""
    for number in range(2):
        os.stat(directory / operations.file_names(HUGE)[number])
        (directory / f"new{number}").touch()
        os.listdir(directory)
        (directory / f"new{number}").unlink()
        for name in operations.file_names(HUGE)[2 + number * 20 : 22 + number * 20]:
            (directory / name).unlink()
        os.listdir(directory)


def start(work: Callable[[], object]) -> tuple[int, int]:
    """A child that does `work`: its pid, and a descriptor that ends with it, which the caller closes."""
    done_read, done_write = os.pipe()
    os.set_blocking(done_read, False)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    os.close(done_write)
    return pid, done_read


def ended(fd: int) -> bool:
    """The writer of this pipe has gone."""
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def latencies(names: list[str], until: int | None = None) -> list[float]:
    """Milliseconds of each stat, with pauses between; while the writer of the pipe `until` lives."""
    found = []
    for name in names:
        begin = time.perf_counter()
        os.stat(name)
        found.append((time.perf_counter() - begin) * 1e3)
        if until is not None and ended(until):
            break
        time.sleep(PAUSE)
    return found


def percentiles(when: str, values: list[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99
    return {
        f"stat, {when}, p50": cuts[49],
        f"stat, {when}, p99": cuts[98],
        f"stat, {when}, max": max(values),
    }
