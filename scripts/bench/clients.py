"""How much 1, 2 and 8 clients get done in total: a process each, in a directory of its own."""

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import operations
import report
from complaints import alarm, complaints
from contenders import Contender
from goals import HELD_TO
from lineup import Runner, in_turn, lineup
from material import write_files
from report import Samples
from scale import files, patience
from stage import make_template

CLIENTS = (1, 2, 8)
TOTAL = files(4000)
WORK_SECONDS = patience(120)


@dataclass(frozen=True)
class Work:
    """What each client does with its share of the names in its place of `directory`, `passes` times over."""

    name: str
    directory: str
    loop: Callable[[list[str]], None]
    passes: int = 1

    def line(self, count: int) -> str:
        return f"{self.name}, {count} client{'s' if count > 1 else ''}"


WORKS = (
    Work("stat, first", "stat", operations.stat_all),
    Work("open+read+close, first", "read", operations.read_all),
    Work("open+read+close, repeated", "read", operations.read_all, passes=5),
    Work("create+write+close", "new", operations.create_all),
)


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """Thousands of operations a second, all clients together, and what that is of one client's."""
    samples: Samples = defaultdict(list)
    works = [work for work in WORKS if only in work.name]
    template = make_template(base, lambda disk: fill(disk / "lower", works))
    taking_part = [contender for contender in contenders if not contender.only]
    for number in range(rounds):
        print(f"bench: clients: round {number + 1}/{rounds}", file=sys.stderr)
        with lineup(taking_part, template, base) as running:
            measure(running, works, number, samples)
    template.unlink()
    rows = [(work.line(count), "1000/s") for work in works for count in CLIENTS]
    names = [contender.name for contender in taking_part]
    return report.figures(samples, rows, names) + "\n\n" + scaling(samples, works, names)


def fill(lower: Path, works: list[Work]) -> None:
    for directory in {work.directory for work in works}:
        for count in CLIENTS:
            for client in range(count):
                place = lower / directory / f"of-{count}" / f"client-{client}"
                place.mkdir(parents=True)
                if directory != "new":
                    write_files(place, TOTAL // count)


def measure(running: list[Runner], works: list[Work], number: int, samples: Samples) -> None:
    """One round."""
    for place, work in enumerate(works):
        for runner in in_turn(running, number + place):
            for count in CLIENTS:
                top = runner.stage.mountpoint / work.directory / f"of-{count}"
                os.sync()
                with complaints(runner.contender, work.line(count)):
                    seconds = together(work, [top / f"client-{client}" for client in range(count)])
                    samples[work.line(count), runner.name].append(TOTAL * work.passes / seconds / 1000)


def together(work: Work, places: list[Path]) -> float:
    """Seconds from the start of the clients, one in each of `places`, to the end of the last. OSError."""
    names = operations.file_names(TOTAL // len(places))
    pids: list[int] = []
    try:
        with alarm(WORK_SECONDS):
            return run_clients(work, names, places, pids)
    finally:
        for pid in pids:  # those that hang, after an alarm
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run_clients(work: Work, names: list[str], places: list[Path], pids: list[int]) -> float:
    """The seconds; `pids` holds the clients that have not been waited for."""
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    pids.extend(start_client(work, names, place, (go_read, go_write), ready_write) for place in places)
    os.close(go_read)
    os.close(ready_write)
    waiting = len(places)
    while waiting:
        said = os.read(ready_read, waiting)
        if not said:
            break  # one of them failed; its status tells
        waiting -= len(said)
    os.close(ready_read)
    begin = time.perf_counter()
    os.close(go_write)
    failed = 0
    while pids:
        failed += bool(os.waitpid(pids[0], 0)[1])
        del pids[0]
    seconds = time.perf_counter() - begin
    if failed:
        raise OSError(f"{failed} of {len(places)} clients failed")
    return seconds


def start_client(work: Work, names: list[str], place: Path, go: tuple[int, int], ready_write: int) -> int:
    """A child that enters `place`, says so to the one pipe, and works when the other (`go`) ends; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(go[1])
            os.chdir(place)
            os.write(ready_write, b"x")
            os.close(ready_write)
            os.read(go[0], 1)  # ends when the parent closes the other end
            for _ in range(work.passes):
                work.loop(names)
            status = 0
        finally:
            os._exit(status)
    return pid


def scaling(samples: Samples, works: list[Work], names: list[str]) -> str:
    """The total of 2 and 8 clients, as a ratio to one client's; bold where it is below the goal."""
    lines = []
    for work in works:
        for count in CLIENTS[1:]:
            cells = [gain(samples, work, count, name) for name in names]
            lines.append([work.line(count), "≥ 1", *cells])
    return report.markdown(["total, of one client's", "goal", *names], lines)


def gain(samples: Samples, work: Work, count: int, name: str) -> str:
    """Median of the per-round ratios."""
    pairs = zip(samples[work.line(count), name], samples[work.line(1), name], strict=False)
    found = [many / one for many, one in pairs]
    if not found:
        return "–"
    text = f"{median(found):.2f}"
    return f"**{text}**" if name in HELD_TO and float(text) < 1 else text
