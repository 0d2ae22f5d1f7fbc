"""layerstore beside the tools people use for the same work: time, peak memory, and the goals.

Each row is printed, and with `--write` written, as soon as it is measured: a run that is cut off keeps
its rows.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import document

from store.inputs import Sizes
from store.measure import ROOT, said_by, unmount_below
from store.plan import Bench
from store.results import Results, spoken, tables

BEGIN_MARK, END_MARK = "<!-- layers: begin -->", "<!-- layers: end -->"
OTHERS = ("buildah", "umoci", "podman", "skopeo", "tar", "zstd", "docker-registry")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each row but the large file's; default 3")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to try the scripts out")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk images are made")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the tables between the layers marks in FILE"
    )
    return parser.parse_args()


class Report:
    """What has been measured so far: on standard output row by row, and with `write` in that file."""

    def __init__(self, results: Results, rounds: int, write: Path | None) -> None:
        self._results = results
        self._rounds = document.counted(rounds)
        self._write = write
        self._started = time.monotonic()
        self._versions = "; ".join(said_by(name, "--version").splitlines()[0] for name in OTHERS)

    def row(self, name: str) -> None:
        print(spoken(name, self._results.rows[name]), flush=True)
        self._put(", not finished,")

    def _put(self, state: str = "") -> None:
        if self._write is not None:
            text = self._text(state)
            document.write_between_marks(self._write, "layers", BEGIN_MARK, END_MARK, text)

    def _text(self, state: str = "") -> str:
        command = shlex.join(["scripts/bench/layers", *sys.argv[1:]])
        seconds = time.monotonic() - self._started
        said = document.conditions(command, self._rounds + state, seconds, self._versions)
        return f"{said}\n\n{tables(self._results)}"

    def finish(self) -> None:
        print(f"\n{self._text()}", flush=True)
        self._put()
        if self._write is not None:
            document.redraw(self._write)


def stop(signum: int, _frame: object) -> None:
    """Leave through every `finally`, once: a second signal does not keep the disks from being unmounted."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + signum)


def main() -> None:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root, for loop images and the contenders' overlay mounts")
    write = arguments.write and ROOT / arguments.write
    if write:
        document.check_marks(write, "layers", BEGIN_MARK, END_MARK)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    sizes = Sizes.quick() if arguments.quick else Sizes()
    results = Results()
    report = Report(results, arguments.rounds, write)
    base = Path(tempfile.mkdtemp(prefix="layerstore-bench-", dir=arguments.dir))
    try:
        Bench(base, sizes, arguments.rounds, arguments.only, results, report.row).run()
        report.finish()
    finally:
        unmount_below(base)  # what a signal came in the middle of
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
