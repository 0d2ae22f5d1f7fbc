"""Run every contender through every workload, round by round, and print the table.

`scripts/bench/run [--rounds N] [--contenders A,B] [--only TEXT] [--write docs/benchmarks.md]`
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from contenders import CONTENDERS, ROOT, Contender, Mounted, mounted
from report import table
from stage import Stage, fresh_stage, settle
from workloads import KNOWN_INODES, WORKLOADS, Workload, files, know_inodes

START = "start"
MEMORY = f"memory per {KNOWN_INODES:,} known inodes"
BEGIN_MARK, END_MARK = "<!-- bench: begin -->", "<!-- bench: end -->"

Samples = defaultdict[tuple[str, str], list[float]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--contenders",
        default="kernel,fuse-overlayfs,overlayfs-py,overlayfs-py volatile",
        help="of: " + ", ".join(CONTENDERS),
    )
    parser.add_argument("--only", default="", help="only workloads whose name contains this")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk images are made")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between FILE's bench marks")
    return parser.parse_args()


def measure(
    contender: Contender, stage: Stage, workloads: list[Workload], memory: bool, out: Samples
) -> None:
    """One contender, one round."""
    for workload in workloads:
        if workload.prepare and contender.takes(workload.name):
            workload.prepare(stage.lower / workload.directory)
    if memory and not contender.only and not (stage.lower / "d100k").exists():
        files(stage.lower / "d100k", KNOWN_INODES, b"")
    settle()
    with mounted(contender, stage) as mount:
        out[START, contender.name].append(mount.start_seconds * 1e3)
        for workload in workloads:
            if contender.takes(workload.name):
                seconds = workload.measure(stage.mountpoint / workload.directory)
                out[workload.name, contender.name].append(workload.figure(seconds))
    if memory and contender.daemon and not contender.only:
        with mounted(contender, stage) as mount:
            out[MEMORY, contender.name].append(grown_mib(mount, stage))


def grown_mib(mount: Mounted, stage: Stage) -> float:
    """What the daemon's resident memory grows by when it gets to know the inodes."""
    before = mount.rss_kib() or 0
    know_inodes(stage.mountpoint)
    return ((mount.rss_kib() or 0) - before) / 1024


def conditions(contenders: list[Contender], rounds: int) -> str:
    """What was measured, where and how: one line each."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "unknown")
    machine = f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    versions = "; ".join(f"{c.name}: {c.describe()}" for c in contenders if not c.only)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"Command: `scripts/bench/run {' '.join(map(shell_word, sys.argv[1:]))}`, "
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, {rounds} rounds, medians (lowest–highest).\n"
        f"Machine: {machine}; load average at the end {load}.\nVersions: {versions}."
    )


def shell_word(word: str) -> str:
    return f"'{word}'" if " " in word else word


def write_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the marks of `path`."""
    content = path.read_text()
    head, rest = content.split(BEGIN_MARK, 1)
    _, tail = rest.split(END_MARK, 1)
    path.write_text(f"{head}{BEGIN_MARK}\n{text}\n{END_MARK}{tail}")


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop images and kernel overlayfs mounts")
    contenders = [CONTENDERS[name.strip()] for name in arguments.contenders.split(",")]
    workloads = [workload for workload in WORKLOADS if arguments.only in workload.name]
    workloads = [w for w in WORKLOADS if w.directory in {chosen.directory for chosen in workloads}]
    memory = arguments.only in MEMORY
    samples: Samples = defaultdict(list)
    base = Path(tempfile.mkdtemp(prefix="overlayfs-py-bench-", dir=arguments.dir))
    try:
        for number in range(arguments.rounds):
            turn = number % len(contenders)
            for contender in contenders[turn:] + contenders[:turn]:
                print(f"bench: round {number + 1}/{arguments.rounds}: {contender.name}", file=sys.stderr)
                with fresh_stage(base / f"{number}") as stage:
                    measure(contender, stage, workloads, memory, samples)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    rows = [(START, "ms"), *((w.name, w.unit) for w in workloads)]
    rows += [(MEMORY, "MiB")] if memory else []
    text = (
        conditions(contenders, arguments.rounds) + "\n\n" + table(samples, rows, [c.name for c in contenders])
    )
    print(text)
    if arguments.write:
        write_between_marks(ROOT / arguments.write, text)


if __name__ == "__main__":
    main()
