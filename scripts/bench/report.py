"""Medians, ratios and goals of a run as markdown tables."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from contenders import KERNEL, PEER
from goals import HELD_TO, LIMITS, goal_of

Samples = defaultdict[tuple[str, str], list[float]]  # (row, contender) -> one figure a round
Rows = Sequence[tuple[str, str]]  # (row, unit)


def digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values: Sequence[float]) -> str:
    """Median and, when rounds differ, the range."""
    if not values:
        return "–"
    low, high = min(values), max(values)
    spread = f" ({digits(low)}–{digits(high)})" if len(values) > 1 else ""
    return digits(median(values)) + spread


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are words and the others figures."""
    rule = "|" + "---|" * left + "---:|" * (len(head) - left)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(ln) + " |" for ln in lines)])


def figures(samples: Samples, rows: Rows, contenders: Sequence[str]) -> str:
    """Median and range of each contender in each row."""
    lines = [[row, unit, *(cell(samples.get((row, name), ())) for name in contenders)] for row, unit in rows]
    return markdown(["operation", "unit", *contenders], lines, left=2)


def ratio(samples: Samples, row: tuple[str, str], ours: str, base: str) -> float | None:
    """Median of the per-round ratios of time: below 1 is faster than `base`; None without figures."""
    name, unit = row
    pairs = zip(samples.get((name, ours), ()), samples.get((name, base), ()), strict=False)
    ratios = [(b / a if unit == "MB/s" else a / b) for a, b in pairs if a and b]
    return median(ratios) if ratios else None


def two_places(value: float) -> str:
    return f"{value:.2f}"


def judged(value: float | None, limit: float | None, written: Callable[[float], str] = two_places) -> str:
    """A figure; bold when it misses its limit."""
    if value is None:
        return "–"
    text = written(value)
    return f"**{text}**" if missed(value, limit) else text


def missed(value: float | None, limit: float | None) -> bool:
    """By more than the digits that are printed show."""
    return value is not None and limit is not None and round(value, 2) > limit


def ratios(samples: Samples, rows: Rows, contenders: Sequence[str]) -> str:
    """Each of ours against each peer, with the goals; missed ones bold."""
    ours = [name for name in contenders if name not in (KERNEL, PEER)]
    bases = [name for name in (KERNEL, PEER) if name in contenders]
    head = ["operation"]
    for base in bases:
        head += [f"goal, of {base}", *(f"{name} ÷ {base}" for name in ours)]
    lines = []
    for row in rows:
        line = [row[0]]
        for base in bases:
            line.append(goal_text(row[0], base))
            line += [judged(ratio(samples, row, name, base), limit_for(row[0], base, name)) for name in ours]
        if any(word not in ("–", "") for word in line[1:]):
            lines.append(line)
    return markdown(head, lines)


def goal_text(row: str, base: str) -> str:
    goal = goal_of(row)
    if goal is None:
        return ""
    limits = sorted({goal.limit(base, name) for name in HELD_TO}, reverse=True)
    return "≤ " + " / ".join(f"{limit:g}" for limit in limits)


def limit_for(row: str, base: str, ours: str) -> float | None:
    """The limit that `ours` is held to; None: none."""
    goal = goal_of(row)
    if goal is None or ours not in HELD_TO:
        return None
    return goal.limit(base, ours)


def absolute(samples: Samples, rows: Rows, contenders: Sequence[str]) -> str:
    """The goals that are plain figures."""
    lines = []
    for row, unit in rows:
        if row in LIMITS:
            medians = {name: median(samples[row, name]) for name in contenders if samples.get((row, name))}
            cells = [
                judged(medians.get(name), LIMITS[row] if name in HELD_TO else None, digits)
                for name in contenders
            ]
            lines.append([row, unit, f"≤ {LIMITS[row]:g}", *cells])
    return markdown(["what", "unit", "goal", *contenders], lines, left=2)


def verdict(samples: Samples, rows: Rows, contenders: Sequence[str]) -> str:
    """How many goals each of ours reaches, and those it misses, by name."""
    lines = []
    for name in HELD_TO:
        judgements = list(_judgements(samples, rows, name, contenders)) if name in contenders else []
        if judgements:
            failed = [text for text, reached in judgements if not reached]
            lines.append(f"- `{name}` reaches {len(judgements) - len(failed)} of {len(judgements)} goals")
            lines += [f"    - missed: {text}" for text in failed]
    return "\n".join(lines)


def _judgements(
    samples: Samples, rows: Rows, ours: str, contenders: Sequence[str]
) -> Sequence[tuple[str, bool]]:
    """(what, reached) for each goal with a figure."""
    found = []
    for row in rows:
        for base in (KERNEL, PEER):
            value, limit = ratio(samples, row, ours, base), limit_for(row[0], base, ours)
            if base in contenders and value is not None and limit is not None:
                found.append(
                    (f"{row[0]}: {value:.2f} times {base}, goal {limit:g}", not missed(value, limit))
                )
        values = samples.get((row[0], ours), ())
        if values and row[0] in LIMITS:
            limit = LIMITS[row[0]]
            found.append(
                (f"{row[0]}: {digits(median(values))} {row[1]}, goal {limit:g}", median(values) <= limit)
            )
    return found


def merge(into: Samples, figures_of_one: Mapping[str, float], contender: str) -> None:
    for row, value in figures_of_one.items():
        into[row, contender].append(value)
