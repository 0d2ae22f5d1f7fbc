"""The figures of a run as tables: time against the goals, and peak memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from document import counted
from report import cell, digits, markdown

from store.measure import Cost

MEMORY_MIB = 200
_HEAD = ("work (s)", "rounds", "layerstore", "others", "÷ the faster", "goal", "met", "÷ in processor time")


@dataclass(frozen=True)
class Goal:
    """`ours` takes at most `ratio` times what the faster of `peers` takes and, where given, `seconds`."""

    ours: str
    peers: tuple[str, ...]
    ratio: float
    seconds: float | None = None

    def __str__(self) -> str:
        alone = "" if self.seconds is None else f", ≤ {self.seconds:g} s"
        return f"≤ {self.ratio:g}{alone}"


@dataclass
class Row:
    goal: Goal
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def seconds(self, name: str) -> list[float]:
        return [cost.seconds for cost in self.costs.get(name, ())]

    def processor(self, name: str) -> list[float]:
        return [cost.processor for cost in self.costs.get(name, ())]

    def ratio(self, of: Callable[["Row", str], list[float]]) -> float | None:
        """Median over the rounds of our figure by the lowest of the peers in that round."""
        peers = [of(self, name) for name in self.goal.peers if self.costs.get(name)]
        if not peers:
            return None
        fastest = [min(times) for times in zip(*peers, strict=True)]
        ratios = [mine / other for mine, other in zip(of(self, self.goal.ours), fastest, strict=True)]
        return float(median(ratios))

    def is_met(self) -> bool:
        value = self.ratio(Row.seconds)
        limit = self.goal.seconds
        in_time = limit is None or median(self.seconds(self.goal.ours)) <= limit
        return value is not None and round(value, 2) <= self.goal.ratio and in_time

    def rounds(self) -> int:
        return len(self.costs[self.goal.ours])

    def result(self, name: str) -> float:
        return self.costs[name][0].result

    def peak(self, name: str) -> float:
        """The highest of all rounds, in MiB."""
        return max(cost.mib for cost in self.costs[name])


class Results:
    """Rows in the order they were first measured in."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, row: str, goal: Goal, contender: str, cost: Cost) -> None:
        self.rows.setdefault(row, Row(goal)).costs.setdefault(contender, []).append(cost)


def tables(results: Results) -> str:
    reached = sum(row.is_met() for row in results.rows.values())
    lines = [_time_line(name, row) for name, row in results.rows.items()]
    times = markdown(_HEAD, lines)
    peaks = [_memory_line(name, row) for name, row in results.rows.items()]
    memory = markdown(["peak memory (MiB)", "layerstore", "others", "goal", "met"], peaks)
    made = [_result_line(name, row) for name, row in results.rows.items() if row.result(row.goal.ours)]
    sizes = [markdown(["size of the layer (MiB)", "layerstore", "others"], made)] if made else []
    reached_line = f"{reached} of {len(results.rows)} goals for time are met."
    return "\n\n".join([times, reached_line, memory, *sizes])


def _time_line(name: str, row: Row) -> Sequence[str]:
    value, work = row.ratio(Row.seconds), row.ratio(Row.processor)
    others = "; ".join(f"{peer} {cell(row.seconds(peer))}" for peer in row.goal.peers)
    met = "yes" if row.is_met() else "**no**"
    ours = cell(row.seconds(row.goal.ours))
    return [name, str(row.rounds()), ours, others, _shown(value), str(row.goal), met, _shown(work)]


def spoken(name: str, row: Row) -> str:
    """A row as one line, the moment it is measured."""
    _, _, ours, others, value, goal, _, work = _time_line(name, row)
    verdict = "met" if row.is_met() else "missed"
    after = f"after {counted(row.rounds())}"
    return f"{name}: {ours} s; {others}: {value} (goal {goal}, {verdict}), {work} in processor time, {after}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _result_line(name: str, row: Row) -> Sequence[str]:
    others = "; ".join(f"{peer} {digits(row.result(peer))}" for peer in row.goal.peers if row.costs.get(peer))
    return [name, digits(row.result(row.goal.ours)), others]


def _memory_line(name: str, row: Row) -> Sequence[str]:
    ours = row.peak(row.goal.ours)
    others = "; ".join(f"{peer} {digits(row.peak(peer))}" for peer in row.goal.peers if row.costs.get(peer))
    return [name, digits(ours), others, f"≤ {MEMORY_MIB}", "yes" if ours <= MEMORY_MIB else "**no**"]
