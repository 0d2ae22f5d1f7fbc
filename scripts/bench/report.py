"""Medians and ratios of one run as a markdown table."""

from collections.abc import Mapping, Sequence
from statistics import median

Samples = Mapping[tuple[str, str], Sequence[float]]  # (workload, contender) -> one figure a round


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


def ratio(samples: Samples, workload: str, ours: str, base: str, higher_is_better: bool) -> str:
    """Median of the per-round ratios, as "times the other's time" (below 1 is faster)."""
    pairs = list(zip(samples.get((workload, ours), ()), samples.get((workload, base), ()), strict=False))
    ratios = [(b / a if higher_is_better else a / b) for a, b in pairs if a and b]
    return f"{median(ratios):.2f}" if ratios else "–"


def table(samples: Samples, rows: Sequence[tuple[str, str]], contenders: Sequence[str]) -> str:
    """`rows` are (workload, unit); each of ours is set against every peer that took part."""
    peers = [name for name in ("kernel", "fuse-overlayfs") if name in contenders]
    ours = [name for name in contenders if name not in peers]
    versus = [(mine, peer) for mine in ours for peer in peers if "volatile" not in mine]
    head = ["operation", "unit", *contenders, *(f"{mine} ÷ {peer}" for mine, peer in versus)]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for workload, unit in rows:
        cells = [cell(samples.get((workload, name), ())) for name in contenders]
        cells += [ratio(samples, workload, mine, peer, unit == "MB/s") for mine, peer in versus]
        lines.append(f"| {workload} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
