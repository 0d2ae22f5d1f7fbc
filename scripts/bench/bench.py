"""Measure kernel overlayfs, fuse-overlayfs and this project's engines: the tables of docs/benchmarks.md.

Suites: `table` (every operation, with the goals), `depth` (cost of a lookup by number of layers),
`clients` (1, 2 and 8 at once), `latency` (others' requests beside a long copy-up, and a huge directory),
`idle` (processor time of a mount nobody uses), `costs` (requests and processor time of every operation).
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
import costs
import depth
import document
import idle
import latency
import scale
import table
from contenders import CONTENDERS, ROOT, Contender

Suite = Callable[[list[Contender], int, str, Path], str]  # contenders, rounds, only, base directory

ALL = "kernel,fuse-overlayfs,cached,passthrough,pyfuse3,volatile,writeback"

# Suite: what runs it, and its rounds when none are asked for.
SUITES: dict[str, tuple[Suite, int]] = {
    "table": (table.run, 5),
    "depth": (depth.run, 3),
    "clients": (clients.run, 3),
    "latency": (latency.run, 2),
    "idle": (idle.run, 1),
    "costs": (costs.run, 3),
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
    return scale.prefix() + shlex.join(words)


def versions(contenders: list[Contender]) -> str:
    return "; ".join(f"{contender.name}: {contender.describe()}" for contender in contenders)


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
            seconds = time.monotonic() - begin
            said = document.conditions(command, document.counted(rounds), seconds, versions(contenders))
            print(f"## {name}\n\n{said}\n\n{tables}\n", flush=True)
            if arguments.write:
                begin_mark, end_mark = f"<!-- bench: begin {name} -->", f"<!-- bench: end {name} -->"
                text = f"{said}\n\n{tables}"
                document.write_between_marks(ROOT / arguments.write, name, begin_mark, end_mark, text)
                document.redraw(ROOT / arguments.write)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
