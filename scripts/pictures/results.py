"""The tables of docs/benchmarks.md, read back: what the plots and the table of goals are made from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Kind of work, and which rows of the main run are of that kind.
KINDS = (
    ("open, stat, list again", r".*, repeated"),
    ("start Python, git status, gcc", r"python|git|compile"),
    ("first open, stat, list", r"(open|stat|missing|list|scandir).*, first"),
    ("create, rename, remove", r"create|rename|mkdir|unlink"),
    ("tar -x, rm -rf", r"tar|rm "),
    ("read a large file", r"sequential read|4 KiB random read"),
    ("write a large file", r"sequential write|4 KiB random write"),
    ("copy up", r"copy-up"),
)
FIGURES, RATIOS, ABSOLUTE = 0, 1, 2  # the tables of the main run, in their order


@dataclass(frozen=True)
class Table:
    """A table of a document: its heads, and its rows as cells by head."""

    head: list[str]
    rows: list[dict[str, str]]


def between(text: str, begin: str, end: str) -> str:
    """What stands between two marks; empty without them."""
    return text.partition(begin)[2].partition(end)[0]


def tables(text: str) -> list[Table]:
    """Every table of a piece of markdown."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("|").split(" | ")] for line in block.strip().splitlines()
        ]
        head = lines[0]
        found.append(Table(head, [dict(zip(head, line, strict=True)) for line in lines[2:]]))
    return found


def main_run(document: Path) -> list[Table]:
    """The tables of the run of all operations."""
    return tables(between(document.read_text(), "<!-- bench: begin table -->", "<!-- bench: end table -->"))


def layers_run(document: Path) -> list[Table]:
    """The tables of layerstore's run."""
    return tables(between(document.read_text(), "<!-- layers: begin -->", "<!-- layers: end -->"))


def figure(cell: str) -> float | None:
    """The first number of a cell, a median; None where there is none."""
    found = re.match(r"[\d.,]+", cell.strip("*"))
    return float(found[0].replace(",", "")) if found else None


def kinds(rows: list[dict[str, str]]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The rows of each kind; every row is of one at most, the first that fits."""
    taken: set[str] = set()
    for kind, pattern in KINDS:
        named = [row for row in rows if row["operation"] not in taken and re.match(pattern, row["operation"])]
        taken |= {row["operation"] for row in named}
        if named:
            yield kind, named
