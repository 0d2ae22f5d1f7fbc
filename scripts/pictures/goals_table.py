"""The table of goals at the head of docs/benchmarks.md, made from the ratios below it."""

import re
from pathlib import Path

from results import ABSOLUTE, RATIOS, figure, kinds, main_run

BEGIN, END = "<!-- goals: begin -->", "<!-- goals: end -->"
OURS = ("cached", "passthrough")
PEERS = ("kernel", "fuse-overlayfs")
HEAD = [
    "work",
    *(f"{ours} ÷ {peer}" for ours in OURS for peer in PEERS),
    *(f"goals, {ours}" for ours in OURS),
]


def has_figures(document: Path) -> bool:
    """Whether the run was one of all contenders that the table and the plot compare."""
    found = main_run(document)
    columns = {f"{ours} ÷ {peer}" for ours in OURS for peer in PEERS}
    return BEGIN in document.read_text() and len(found) > ABSOLUTE and columns <= set(found[RATIOS].head)


def render(document: Path) -> str:
    """A line for each kind of work, and one for what has an absolute goal."""
    ratios, absolute = main_run(document)[RATIOS], main_run(document)[ABSOLUTE]
    lines, reached = [], {ours: [0, 0] for ours in OURS}
    for kind, rows in kinds(ratios.rows):
        spans = [span(rows, f"{ours} ÷ {peer}") for ours in OURS for peer in PEERS]
        lines.append([kind, *spans, *counts(rows, reached, PEERS)])
    lines.append(["start, memory, 100,000 names", "", "", "", "", *counts(absolute.rows, reached, ())])
    total = [f"**{met} of {all_of}**" for met, all_of in reached.values()]
    lines.append(["**all**", "", "", "", "", *total])
    rule = "|---|" + "---:|" * (len(HEAD) - 1)
    return "\n".join(
        ["| " + " | ".join(HEAD) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)]
    )


def span(rows: list[dict[str, str]], column: str) -> str:
    """The least and the largest of a column."""
    values = [value for row in rows if (value := figure(row[column])) is not None]
    if not values:
        return "–"
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low}–{high}"


def counts(rows: list[dict[str, str]], reached: dict[str, list[int]], peers: tuple[str, ...]) -> list[str]:
    """How many goals each of ours reaches in these rows; a figure that misses its goal is bold."""
    cells = []
    for ours in OURS:
        columns = [(f"goal, of {peer}", f"{ours} ÷ {peer}") for peer in peers] or [("goal", ours)]
        judged = [row[mine] for row in rows for goal, mine in columns if row[goal] and row[mine] != "–"]
        met = sum(not cell.startswith("**") for cell in judged)
        reached[ours][0] += met
        reached[ours][1] += len(judged)
        cells.append(f"{met} of {len(judged)}" if judged else "–")
    return cells


def write(document: Path) -> None:
    """Put the table between its marks."""
    text = document.read_text()
    new = re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{render(document)}\n{END}", text, flags=re.DOTALL)
    document.write_text(new)
