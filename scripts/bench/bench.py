"""Measure kernel overlayfs, fuse-overlayfs and this project's engines: the tables of docs/benchmarks.md.

Suites: `table` (every operation, with the goals), `depth` (cost of a lookup by number of layers),
`clients` (1, 2 and 8 at once), `latency` (others' requests during a long copy-up), `idle` (processor
time of a mount nobody uses).
"""

import argparse
import gc
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import clients
import depth
import idle
import latency
import table
from contenders import CONTENDERS, ROOT, Contender

Suite = Callable[[list[Contender], int, str, Path], str]  # contenders, rounds, only, base directory

ALL = "kernel,fuse-overlayfs,cached,passthrough,pyfuse3,volatile"

# Suite: what runs it, and its rounds when none are asked for.
SUITES: dict[str, tuple[Suite, int]] = {
    "table": (table.run, 5),
    "depth": (depth.run, 3),
    "clients": (clients.run, 3),
    "latency": (latency.run, 2),
    "idle": (idle.run, 1),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="one or more of them, or all; else table")
    parser.add_argument("--rounds", type=int, help="of each suite; else " + str(ROUNDS))
    parser.add_argument(
        "--contenders",
        default=ALL,
        help="of: " + ", ".join(CONTENDERS),
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk images are made")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put each table between FILE's marks for it"
    )
    arguments = parser.parse_args()
    names = list(SUITES) if "all" in arguments.suites else arguments.suites or ["table"]
    arguments.contenders = [name.strip() for name in arguments.contenders.split(",")]
    for name in names:
        if name not in SUITES:
            parser.error(f"no such suite: {name} (there are {', '.join(SUITES)})")
    for name in arguments.contenders:
        if name not in CONTENDERS:
            parser.error(f"no such contender: {name} (there are {', '.join(CONTENDERS)})")
    arguments.suites = names
    return arguments


ROUNDS = ", ".join(f"{name} {rounds}" for name, (_, rounds) in SUITES.items())


def command_line(suite: str, rounds: int, arguments: argparse.Namespace) -> str:
    """What makes one suite's table again."""
    words = ["scripts/bench/run", suite, "--rounds", str(rounds)]
    if (names := ",".join(arguments.contenders)) != ALL:
        words += ["--contenders", names]
    if arguments.only:
        words += ["--only", arguments.only]
    return shlex.join(words)


def conditions(command: str, contenders: list[Contender], rounds: int, seconds: float) -> str:
    """What was measured, where and how: one line each."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "unknown")
    machine = f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    versions = "; ".join(f"{contender.name}: {contender.describe()}" for contender in contenders)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    took = f"{rounds} round{'s' if rounds > 1 else ''} in {seconds / 60:.1f} min"
    return (
        f"Command: `{command}`, {when} UTC, {took}: medians (lowest–highest).\n"
        f"Machine: {machine}; load average at the end {load}.\nVersions: {versions}."
    )


def write_between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of the suite `name`."""
    begin, end = f"<!-- bench: begin {name} -->", f"<!-- bench: end {name} -->"
    content = path.read_text()
    if begin not in content or end not in content:
        raise SystemExit(f"bench: {path} has no marks for {name}: {begin} and {end}")
    head, rest = content.split(begin, 1)
    _, tail = rest.split(end, 1)
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop images and kernel overlayfs mounts")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unmounts everything on the way out
    gc.disable()  # nothing here makes cycles, and a collection would be on somebody's clock
    contenders = [CONTENDERS[name] for name in arguments.contenders]
    base = Path(tempfile.mkdtemp(prefix="ovlbench-", dir=arguments.dir))
    try:
        for name in arguments.suites:
            suite, rounds = SUITES[name]
            rounds = arguments.rounds or rounds
            begin = time.monotonic()
            tables = suite(contenders, rounds, arguments.only, base)
            command = command_line(name, rounds, arguments)
            said = conditions(command, contenders, rounds, time.monotonic() - begin)
            print(f"## {name}\n\n{said}\n\n{tables}\n", flush=True)
            if arguments.write:
                write_between_marks(ROOT / arguments.write, name, f"{said}\n\n{tables}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
