"""What a lookup costs in a directory that is merged from 1, 10, 100 and 500 lower layers."""

import contextlib
import sys
from collections import defaultdict
from pathlib import Path

import operations
import report
from complaints import complaints
from contenders import Contender, mounted
from material import write_files
from operations import timed
from report import Samples
from scale import files
from stage import Stage, fresh_stage, make_template

DEPTHS = (1, 10, 100, 500)
NAMES = operations.file_names(files(1000))
ABSENT = operations.file_names(files(1000), "absent")
LOWEST = "lowest"
MERGE = ("first lookup in the merged directory", "ms")
FOUND = ("stat of a name of the lowest layer, first", "µs")
MISSING = ("missing name, first", "µs")
LISTING = ("list it, first", "ms")
ROWS = (MERGE, FOUND, MISSING, LISTING)


def run(contenders: list[Contender], rounds: int, only: str, base: Path) -> str:
    """One line for each row and depth."""
    samples: Samples = defaultdict(list)
    template = make_template(base, fill)
    taking_part = [contender for contender in contenders if not contender.only]
    for number in range(rounds):
        print(f"bench: depth: round {number + 1}/{rounds}", file=sys.stderr)
        with fresh_stage(base, template) as stage:
            for depth in DEPTHS:
                for contender in taking_part:
                    name = f"{depth}-{contender.name}"
                    with (
                        complaints(contender, f"{depth} layers"),
                        stage.beside(name, names_of(depth)) as place,
                    ):
                        measure(contender, depth, place, samples)
    template.unlink()
    rows = [(line(row, depth), unit) for row, unit in ROWS if only in row for depth in DEPTHS]
    return report.figures(samples, rows, [contender.name for contender in taking_part])


def line(row: str, depth: int) -> str:
    return f"{row}, {depth} layer{'s' if depth > 1 else ''}"


def fill(disk: Path) -> None:
    """Layers `0` to `498`, each with a name of its own in the directory, and the lowest with a thousand."""
    for number in range(max(DEPTHS) - 1):
        write_files(disk / str(number) / "merged", 1, prefix=f"own-{number}")
    write_files(disk / LOWEST / "merged", len(NAMES))


def names_of(depth: int) -> tuple[str, ...]:
    """The lowest layer under `depth - 1` others."""
    return (*(str(number) for number in range(depth - 1)), LOWEST)


def measure(contender: Contender, depth: int, stage: Stage, samples: Samples) -> None:
    with mounted(contender, stage):
        found: dict[tuple[str, str], float] = {}
        with contextlib.chdir(stage.mountpoint):
            found[MERGE] = timed(lambda: operations.stat_all([f"merged/{NAMES[0]}"])) * 1e3
        with contextlib.chdir(stage.mountpoint / "merged"):
            found[FOUND] = timed(lambda: operations.stat_all(NAMES)) * 1e6 / len(NAMES)
            found[MISSING] = timed(lambda: operations.miss_all(ABSENT)) * 1e6 / len(ABSENT)
            found[LISTING] = timed(operations.list_names) * 1e3
    for (row, _), value in found.items():
        samples[line(row, depth), contender.name].append(value)
