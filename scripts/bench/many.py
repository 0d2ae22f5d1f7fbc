"""A mount with very many files whose daemon may open few: nothing fails, and all contents are right.

For each hard limit and each engine and data path, over a fresh ext4 image: create files, append to them,
`cp -a` a lower tree, chmod lower files, write to lower files, rename, read, unlink while open, list many
directories. All is read back, through the mount and below it. Exits 1 when anything was wrong.
"""

import argparse
import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import crowd
import document
import report
import scale
from contenders import CONTENDERS, ENVIRONMENT, OURS, ROOT, Contender, wait_gone
from crowd import Step
from stage import Stage, fresh_stage, make_template, unmount
from watching import Watch

NAME = "many"
LIMITS = "64,256,1024,20000"
TAKING_PART = "cached,writeback,passthrough,pyfuse3"
SECONDS_TO_START = 60


@dataclass
class Result:
    """What one contender with one limit did."""

    contender: str
    limit: int
    steps: list[Step] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    watch: Watch | None = None

    def add(self, step: Step) -> None:
        self.steps.append(step)
        for what, count in step.failures.items():
            self.wrong.append(f"{step.name}: {count} × {what}")
        print(f"many: {self.contender}, {self.limit}: {step.name}: {step.seconds:.1f} s", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=int, default=scale.files(200_000), help="number of each kind; default 200000"
    )
    parser.add_argument("--limits", default=LIMITS, help=f"hard limits of the daemon; else {LIMITS}")
    parser.add_argument("--contenders", default=TAKING_PART, help=f"else {TAKING_PART}")
    parser.add_argument(
        "--options", default="volatile", help="more mount options; default: volatile, which syncs nothing"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk images are made")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the table between its marks in FILE"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if os.geteuid() != 0:
        raise SystemExit("many: needs root, for loop images and for the limits")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unmounts everything on the way out
    base = Path(tempfile.mkdtemp(prefix="ovlmany-", dir=arguments.dir))
    results, begin = [], time.monotonic()
    try:
        count = arguments.files
        template = make_template(base, lambda disk: fill(disk / "lower", count), inodes=8 * count + 20_000)
        for limit in map(int, arguments.limits.split(",")):
            for name in arguments.contenders.split(","):
                contender = CONTENDERS[name.strip()]
                with fresh_stage(base, template) as stage:
                    results.append(one(contender, limit, stage, count, arguments.options))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    publish(arguments, results, time.monotonic() - begin)
    return 1 if any(result.wrong for result in results) else 0


def fill(lower: Path, count: int) -> None:
    """Two trees of `count` files, and a tenth of that of directories with a file each."""
    with contextlib.chdir(lower):
        for top in ("chmod", "change"):
            make_tree(top, count)
        for path in directories(count):
            os.makedirs(path)
            crowd.create(f"{path}/own", "own")


def make_tree(top: str, count: int) -> None:
    crowd.make_directories(top, count)
    for path, name in crowd.paths(count, top):
        crowd.create(path, name)


def directories(count: int) -> Iterator[str]:
    for number in range(count // 10):
        yield f"list/{number % 100:02d}/{number:06d}"


def one(contender: Contender, limit: int, stage: Stage, count: int, options: str) -> Result:
    """All steps with one contender and one limit."""
    result = Result(contender.name, limit)
    with daemon(contender, limit, stage, options) as process, Watch(process.pid) as watch:
        result.watch = watch
        os.chdir(stage.mountpoint)
        try:
            work(result, limit, count)
        finally:
            os.chdir("/")
        result.wrong += answers(stage)
        watch.calm_down()
    result.wrong += [f"daemon: exit status {process.returncode}"] if process.returncode else []
    watch.read_log(log_of(stage))
    result.wrong += [f"the daemon says: {line}" for line in watch.complaints[:3]]
    below(result, stage, count)
    for text in result.wrong:
        print(f"many: {contender.name}, {limit}: WRONG: {text}", file=sys.stderr)
    return result


def work(result: Result, limit: int, count: int) -> None:
    """The steps, in the working directory; what a client holds open at once is an eighth of the limit."""
    held = max(4, min(1000, limit // 8))
    new, lower = list(crowd.paths(count, "new")), list(crowd.paths(count, "chmod"))
    changed = list(crowd.paths(count, "change"))
    crowd.make_directories("new", count)
    result.add(crowd.run("create", crowd.create, new))
    result.add(crowd.run("append", crowd.append, new))
    result.add(crowd.copy_tree("chmod", "copy"))
    result.add(crowd.run("chmod of lower files", crowd.chmod, lower))
    result.add(crowd.run("write to lower files", crowd.change, changed))
    result.add(crowd.run("rename", crowd.rename, new))
    renamed = [(path + ".new", name) for path, name in new]
    result.add(crowd.run("read", crowd.reading(crowd.appended), renamed))
    result.add(crowd.run("list directories", crowd.listing, [(path, "") for path in directories(count)]))
    unlinker = crowd.Unlinker(held, crowd.appended)
    step = crowd.run("unlink while open", unlinker, renamed)
    with contextlib.suppress(OSError, ValueError):  # the last, fewer than are held at once
        unlinker.finish()
    result.add(step)
    for top, wanted, mode in (
        ("chmod", crowd.content, crowd.MODE),
        ("change", crowd.half_and_half, None),
        ("copy", crowd.content, 0o644),
    ):
        sample = list(crowd.paths(count, top))[:: crowd.SAMPLE]
        result.add(crowd.run(f"read {top} back", crowd.reading(wanted, mode), sample))


def below(result: Result, stage: Stage, count: int) -> None:
    """What the upper holds once it is unmounted."""
    with contextlib.chdir(stage.disk / stage.upper):
        for top, wanted in (
            ("chmod", crowd.content),
            ("change", crowd.half_and_half),
            ("copy", crowd.content),
        ):
            step = crowd.run(f"{top} in the upper", crowd.reading(wanted), crowd.paths(count, top))
            result.wrong += [f"{step.name}: {number} × {what}" for what, number in step.failures.items()]
        left = sum(len(names) for _, _, names in os.walk("new"))
    if left:
        result.wrong.append(f"{left} unlinked files are in the upper")
    if left := crowd.strays(stage.disk / stage.work):
        result.wrong.append(f"{left} temporary files are in the work directory")


def log_of(stage: Stage) -> Path:
    return stage.disk.parent / "log"


@contextlib.contextmanager
def daemon(contender: Contender, limit: int, stage: Stage, options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The contender in the foreground over `stage`, allowed `limit` descriptors; its log goes to a file."""

    def lower_limits() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 1024), limit))

    words = f"lowerdir={stage.lowers[0]},upperdir={stage.upper},workdir={stage.work}"
    words += "".join(f",{word}" for word in (contender.options, options) if word)
    device = stage.mountpoint.stat().st_dev
    with log_of(stage).open("wb") as log:
        process = subprocess.Popen(
            [OURS, "-f", "-o", words, str(stage.mountpoint)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
            cwd=stage.disk,
            preexec_fn=lower_limits,
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while stage.mountpoint.stat().st_dev == device:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"many: {contender.name}: no mount: {log_of(stage).read_text().strip()}")
            time.sleep(0.02)
        yield process
    finally:
        unmount(stage.mountpoint)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait()
        wait_gone(process.pid)


def answers(stage: Stage) -> list[str]:
    """What is wrong with the answer to `overlayfs-pyctl stats`: normally nothing."""
    done = subprocess.run(
        [f"{OURS}ctl", "stats", "--json", str(stage.mountpoint)], capture_output=True, text=True, timeout=60
    )
    return [f"overlayfs-pyctl stats: {done.stderr.strip()}"] if done.returncode else []


def publish(arguments: argparse.Namespace, results: list[Result], seconds: float) -> None:
    """Print the table, and write it into the document of `--write`."""
    words = ["scripts/bench/many", "--files", str(arguments.files)]
    for option, usual in (("limits", LIMITS), ("contenders", TAKING_PART), ("options", "volatile")):
        if (value := getattr(arguments, option)) != usual:
            words += [f"--{option}", value]
    version = CONTENDERS[results[0].contender].describe().split()[0]
    said = document.conditions(shlex.join(words), "once", seconds, version)
    text = f"{said}\n\n{table(results)}"
    print(text, flush=True)
    if arguments.write:
        marks = f"<!-- bench: begin {NAME} -->", f"<!-- bench: end {NAME} -->"
        document.write_between_marks(ROOT / arguments.write, NAME, *marks, text)


def table(results: list[Result]) -> str:
    """A line for each limit and contender, and a list of all that was wrong."""
    names = [step.name for step in results[0].steps if not step.name.endswith("back")]
    head = ["hard limit", "contender", *(f"{name}, s" for name in names)]
    head += ["descriptors, most", "at the end", "MiB, most", "at the end", "complaints", "wrong"]
    lines = []
    for result in results:
        taken = {step.name: step for step in result.steps}
        cells = [time_cell(taken[name]) if name in taken else "–" for name in names]
        watched = result.watch.cells() if result.watch else ["–"] * 5
        lines.append([f"{result.limit:,}", result.contender, *cells, *watched, str(len(result.wrong))])
    wrong = [f"- {result.limit:,}, {result.contender}: {text}" for result in results for text in result.wrong]
    return "\n".join([report.markdown(head, lines, left=2), *([""] if wrong else []), *wrong])


def time_cell(step: Step) -> str:
    """Seconds, and how much longer the last tenth took than the first, where that is more than twice."""
    return report.digits(step.seconds) + (f" (×{step.growth:.1f})" if step.growth > 2 else "")


if __name__ == "__main__":
    sys.exit(main())
