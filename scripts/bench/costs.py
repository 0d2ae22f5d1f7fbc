"""Where the time of a request goes: how many an operation needs, and what daemon and client compute for it.

The daemon does not look for requests here (poll=0), so its processor time is work, and going to sleep after
each answer, which takes it several microseconds that looking saves. No processor halts meanwhile: sending
a virtual one the interrupt that wakes it would count as work, too.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import report
from complaints import alarm, complaints
from contenders import CONTENDERS, KERNEL, OURS, Contender
from lineup import Runner, lineup
from stage import make_template
from table import ROW_SECONDS, fill, seconds_of
from workloads import CHANGES, CREATION, LOOKING, Workload

from overlayfs_py.engine.native.cpu_latency import CpuLatencyRequest

_FILLED = {workload.directory for workload in LOOKING + CREATION + CHANGES if workload.fill}
WORKLOADS = [workload for workload in LOOKING + CREATION + CHANGES if workload.directory in _FILLED]
_OURS = "calm"
_CTL = f"{OURS}ctl"
_SELDOM = 0.05  # requests for one operation that are not listed


class Cost(NamedTuple):
    """Of one row: seconds on the clock, processor seconds of the client and the daemon, requests by name."""

    elapsed: float
    client: float
    daemon: float
    requests: Counter[str]

    @property
    def computed(self) -> float:
        return self.client + self.daemon


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """One line for each operation whose name contains `only`. Who takes part is always the same."""
    named = {workload.directory for workload in WORKLOADS if only in workload.name and workload.possible()}
    workloads = [workload for workload in WORKLOADS if workload.directory in named]
    costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    template = make_template(base, lambda disk: fill(disk / "lower", workloads, with_memory=False))
    for number in range(rounds):
        print(f"bench: costs: round {number + 1}/{rounds}", file=sys.stderr)
        with awake(), lineup([CONTENDERS[KERNEL], CONTENDERS[_OURS]], template, base) as running:
            for workload in workloads:
                for runner in running:
                    with complaints(runner.contender, workload.name), alarm(ROW_SECONDS):
                        costs[workload.name, runner.name].append(cost(workload, runner))
    template.unlink()
    head = ["operation", "unit", "requests", "daemon", "client", KERNEL, f"(daemon + client) ÷ {KERNEL}"]
    lines = [line(row, costs[row.name, _OURS], costs[row.name, KERNEL]) for row in workloads]
    return report.markdown(head, lines, left=3)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep processors from halting meanwhile, where the machine allows it."""
    with contextlib.closing(CpuLatencyRequest.from_option("on")) as held:
        held.start()
        yield


def cost(workload: Workload, runner: Runner) -> Cost:
    """Run it once."""
    requests = requests_of(runner)
    os.sync()  # and again by `seconds_of`, which then costs nothing
    client, daemon = client_seconds(), runner.mount.processor_ms()
    elapsed = seconds_of(workload, runner.stage)
    client, daemon = client_seconds() - client, runner.mount.processor_ms() - daemon
    return Cost(elapsed, client, daemon / 1e3, requests_of(runner) - requests)


def client_seconds() -> float:
    """Processor time of this process and the programs it has run."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in used)


def requests_of(runner: Runner) -> Counter[str]:
    """The number of requests to its daemon so far; the kernel's overlay has none."""
    if not runner.contender.daemon:
        return Counter()
    command = [_CTL, "stats", "--json", str(runner.stage.mountpoint)]
    done = subprocess.run(command, check=True, capture_output=True)
    return Counter(json.loads(done.stdout)["operations"])


def line(row: Workload, ours: list[Cost], kernel: list[Cost]) -> list[str]:
    def middle(costs: list[Cost], part: str) -> float:
        return row.figure(median(getattr(cost, part) for cost in costs)) if costs else 0.0

    daemon, client, base = middle(ours, "daemon"), middle(ours, "client"), middle(kernel, "elapsed")
    ratio = middle(ours, "computed") / base if base else None
    requests = ours[-1].requests if ours else Counter()
    words = [
        f"{operation} {report.digits(count / row.count)}"
        for operation, count in requests.most_common()
        if count / row.count >= _SELDOM
    ]
    figures = [report.digits(value) for value in (daemon, client, base)]
    return [row.name, row.unit, ", ".join(words) or "none", *figures, report.judged(ratio, None)]
