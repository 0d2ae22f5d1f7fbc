"""The main run: every workload with every contender, one right after the other, round by round."""

import contextlib
import os
import sys
from collections import defaultdict
from pathlib import Path

import memory
import report
from complaints import alarm, complaints
from contenders import Contender
from goals import START
from lineup import Runner, in_turn, lineup
from report import Rows, Samples
from scale import patience
from stage import Stage, make_template
from workloads import WORKLOADS, Workload

ROW_SECONDS = patience(120)


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """The tables of the main run, for rows whose name contains `only` (and those they build on)."""
    workloads = chosen(only)
    with_memory = any(only in row for row, _ in memory.ROWS)
    samples: Samples = defaultdict(list)
    template = make_template(base, lambda disk: fill(disk / "lower", workloads, with_memory))
    for number in range(rounds):
        print(f"bench: table: round {number + 1}/{rounds}", file=sys.stderr)
        with lineup(contenders, template, base) as running:
            measure(running, workloads, number, samples)
            if with_memory and number == 0:  # once is enough: it hardly varies, and takes the longest
                measure_memory(running, samples)
    template.unlink()
    return tables(samples, workloads, [contender.name for contender in contenders])


def tables(samples: Samples, workloads: list[Workload], names: list[str]) -> str:
    times: Rows = [(START, "ms"), *((workload.name, workload.unit) for workload in workloads)]
    measured = {row for row, _ in samples}
    rows = [row for row in [*times, *memory.ROWS] if row[0] in measured]
    compared = [row for row in times if row[0] in measured and row[0] != START]
    found = [
        report.figures(samples, rows, names),
        report.ratios(samples, compared, names),
        report.absolute(samples, rows, names),
        report.verdict(samples, rows, names),
    ]
    return "\n\n".join(text for text in found if text)


def chosen(only: str) -> list[Workload]:
    """The workloads asked for that this machine can run, with those that share their directories."""
    named = {workload.directory for workload in WORKLOADS if only in workload.name}
    found = [workload for workload in WORKLOADS if workload.directory in named]
    for workload in found:
        if not workload.possible():
            print(f"bench: {workload.name}: left out, {workload.needs} is not installed", file=sys.stderr)
    return [workload for workload in found if workload.possible()]


def fill(lower: Path, workloads: list[Workload], with_memory: bool) -> None:
    """What the workloads need, in the lower layer."""
    fills = {workload.directory: workload.fill for workload in workloads if workload.fill}
    if with_memory:
        fills[memory.DIRECTORY] = memory.FILL
    for directory, fill_directory in fills.items():
        (lower / directory).mkdir()
        fill_directory(lower / directory)


def measure(running: list[Runner], workloads: list[Workload], number: int, samples: Samples) -> None:
    """One round."""
    for runner in running:
        samples[START, runner.name].append(runner.mount.start_seconds * 1e3)
    for place, workload in enumerate(workloads):
        for runner in in_turn(running, number + place):
            if runner.contender.takes(workload.name):
                with complaints(runner.contender, workload.name):
                    seconds = seconds_of(workload, runner.stage)
                    samples[workload.name, runner.name].append(workload.figure(seconds))


def seconds_of(workload: Workload, stage: Stage) -> float:
    """Run it from the root of the mount; what earlier rows left dirty is on the disk by then."""
    os.sync()
    if workload.before:
        workload.before(stage.lower / workload.directory)
    with contextlib.chdir(stage.mountpoint), alarm(ROW_SECONDS):
        return workload.measure()


def measure_memory(running: list[Runner], samples: Samples) -> None:
    for runner in running:
        if runner.contender.daemon and not runner.contender.only:
            with complaints(runner.contender, "memory"):
                report.merge(samples, memory.measure_memory(runner.contender, runner.stage), runner.name)
