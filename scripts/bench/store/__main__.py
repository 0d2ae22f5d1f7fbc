"""layerstore beside the tools people use for the same work: time, peak memory, and the goals.

`scripts/bench/layers [--rounds N] [--quick] [--only TEXT] [--write docs/benchmarks.md]`
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from store.inputs import Sizes
from store.measure import ROOT, said_by
from store.plan import Bench
from store.results import Results, tables

BEGIN_MARK, END_MARK = "<!-- layers: begin -->", "<!-- layers: end -->"


def conditions(rounds: int, seconds: float) -> str:
    """What was measured, where and how: one line each."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "unknown")
    versions = [
        said_by(name, "--version").splitlines()[0] for name in ("buildah", "umoci", "podman", "skopeo")
    ]
    versions += [said_by(name, "--version").splitlines()[0] for name in ("tar", "zstd", "docker-registry")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    machine = f"{model}, {os.cpu_count()} CPUs, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    return (
        f"Command: `scripts/bench/layers {' '.join(sys.argv[1:])}`, {when} UTC, {rounds} rounds in "
        f"{seconds / 60:.1f} min (the large file: one), medians (lowest–highest).\n"
        f"Machine: {machine}; load average at the end {load}.\nVersions: {'; '.join(versions)}."
    )


def write_between_marks(path: Path, text: str) -> None:
    content = path.read_text()
    if BEGIN_MARK not in content:
        raise SystemExit(f"bench: {path} has no {BEGIN_MARK}")
    head, rest = content.split(BEGIN_MARK, 1)
    tail = rest.split(END_MARK, 1)[1]
    path.write_text(f"{head}{BEGIN_MARK}\n{text}\n{END_MARK}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench/layers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try the scripts out")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk images are made")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables between FILE's layers marks"
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop images and the contenders' overlay mounts")
    started = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="layerstore-bench-", dir=arguments.dir))
    sizes = Sizes.quick() if arguments.quick else Sizes()
    bench = Bench(base, sizes, arguments.rounds, arguments.only, Results())
    try:
        bench.run()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    text = conditions(arguments.rounds, time.monotonic() - started) + "\n\n" + tables(bench.results)
    print(text)
    if arguments.write:
        write_between_marks(ROOT / arguments.write, text)


if __name__ == "__main__":
    main()
