"""The processor time and the wake-ups of daemons without requests, all mounted at once."""

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import operations
import report
from complaints import complaints
from contenders import Contender, Mounted, mounted
from material import write_files
from report import Samples
from scale import files
from stage import Stage, fresh_stage, make_template

SECONDS = 20
CALM_SECONDS = 12  # an unused worker thread ends after ten
NAMES = operations.file_names(files(500))
ROWS = [(f"processor time in {SECONDS} s", "ms"), (f"wake-ups in {SECONDS} s", "")]


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """After some work, and some seconds to calm down."""
    samples: Samples = defaultdict(list)
    template = make_template(base, lambda disk: write_files(disk / "lower", len(NAMES)))
    taking_part = [contender for contender in contenders if contender.daemon and not contender.only]
    for _ in range(rounds):
        with fresh_stage(base, template) as stage, contextlib.ExitStack() as mounts:
            running: dict[str, Mounted] = {}
            for contender in taking_part:
                with complaints(contender, "mount"):
                    running[contender.name] = mounts.enter_context(at_work(contender, stage))
            print(f"bench: idle: waiting for {SECONDS} s", file=sys.stderr)
            time.sleep(CALM_SECONDS)
            before = {name: (mount.processor_ms(), mount.wakeups()) for name, mount in running.items()}
            time.sleep(SECONDS)
            for name, mount in running.items():
                now = (mount.processor_ms(), mount.wakeups())
                for (row, _), late, early in zip(ROWS, now, before[name], strict=True):
                    samples[row, name].append(late - early)
    template.unlink()
    return report.figures(samples, ROWS, [contender.name for contender in taking_part])


@contextlib.contextmanager
def at_work(contender: Contender, stage: Stage) -> Iterator[Mounted]:
    """`contender` with a mount point and upper of its own, after it has answered some requests."""
    with stage.beside(contender.name) as place, mounted(contender, place) as mount:
        with contextlib.chdir(place.mountpoint):
            operations.read_all(NAMES)
            operations.create_all(operations.file_names(files(100), "new"))
            operations.list_names()
        yield mount
