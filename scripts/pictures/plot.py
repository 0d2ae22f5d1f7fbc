"""Plots of docs/benchmarks.md: each operation's time beside another's, on a scale of powers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import RATIOS, figure, kinds, layers_run, main_run
from svg import PAGE, Drawing

ROW, LABELS, RIGHT, TOP = 20, 306, 24, 64
SHAPES = {"cached": "circle", "passthrough": "diamond", "fuse-overlayfs": "square", "layerstore": "circle"}
COLOURS = {
    "cached": "#2b7bd1",
    "passthrough": "#c96a10",
    "fuse-overlayfs": PAGE,
    "layerstore": "#2b7bd1",
}


@dataclass(frozen=True)
class Line:
    """A row of a plot: its name, its figures by series; without figures it is the head of those below."""

    name: str
    values: dict[str, float]


class Plot:
    """Rows below each other, a mark for each figure; `one` says what 1 is."""

    def __init__(self, lines: Sequence[Line], ticks: Sequence[float], title: str, one: str) -> None:
        self._lines, self._ticks = lines, ticks
        self._height = TOP + ROW * len(lines) + 34
        self._drawing = Drawing(900, self._height, title, f"{title}. 1 is {one}; further left is faster.")
        self._one = one

    def render(self) -> str:
        self._axis()
        series = list(dict.fromkeys(name for line in self._lines for name in line.values))
        self._legend(series)
        for place, line in enumerate(self._lines):
            y = TOP + ROW * place + ROW / 2
            if not line.values:
                self._drawing.text(8, y + 5, line.name, size=13, bold=True)
                continue
            self._drawing.text(20, y + 5, line.name, size=13)
            for name in reversed(series):  # the first is drawn last, above the others
                if name in line.values:
                    self._mark(name, self._x(line.values[name]), y)
        return self._drawing.render()

    def _x(self, value: float) -> float:
        """What lies beyond the scale stands at its end."""
        low, high = math.log(self._ticks[0]), math.log(self._ticks[-1])
        share = (math.log(value) - low) / (high - low)
        return LABELS + (900 - RIGHT - LABELS) * min(max(share, 0), 1)

    def _axis(self) -> None:
        bottom = self._height - 28
        for tick in self._ticks:
            x = self._x(tick)
            self._drawing.line([(x, TOP - 6), (x, bottom)], width=2 if tick == 1 else 0.4)
            self._drawing.text(x, bottom + 18, f"{tick:g}", size=12, anchor="middle")
        self._drawing.text(self._x(1), TOP - 14, f"1 = {self._one}", size=12, anchor="middle")

    def _legend(self, series: Sequence[str]) -> None:
        x = 20.0
        for name in series:
            self._mark(name, x, 18)
            self._drawing.text(x + 12, 23, name, size=13)
            x += 40 + 8 * len(name)
        self._drawing.text(900 - RIGHT, 23, "time; further left is faster", size=13, anchor="end")

    def _mark(self, name: str, x: float, y: float) -> None:
        colour = COLOURS[name]
        if SHAPES[name] == "circle":
            self._drawing.add("circle", cx=x, cy=y, r=5, fill=colour)
        elif SHAPES[name] == "diamond":
            points = [(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)]
            self._drawing.add(
                "polygon", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in points), fill=colour
            )
        else:
            self._drawing.add(
                "rect", x=x - 4, y=y - 4, width=8, height=8, fill="none", stroke=colour, stroke_width=1.8
            )


def main_plot(document: Path) -> str:
    """Every operation's time beside kernel overlayfs's."""
    lines = []
    for kind, rows in kinds(main_run(document)[RATIOS].rows):
        lines.append(Line(kind, {}))
        lines += [Line(row["operation"], beside_kernel(row)) for row in rows]
    title = "Time of each operation beside kernel overlayfs"
    return Plot(lines, (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50), title, "kernel overlayfs").render()


def beside_kernel(row: dict[str, str]) -> dict[str, float]:
    """Time by the kernel's: of ours as measured, of fuse-overlayfs by way of the first of ours."""
    values = {name: figure(row[f"{name} ÷ kernel"]) for name in ("cached", "passthrough")}
    peer = figure(row["cached ÷ fuse-overlayfs"])
    values["fuse-overlayfs"] = values["cached"] / peer if values["cached"] and peer else None
    return {name: value for name, value in values.items() if value}


def layers_plot(document: Path) -> str:
    """layerstore's time beside the faster of the other tools."""
    lines = [
        Line(row["work (s)"], {"layerstore": value})
        for row in layers_run(document)[0].rows
        if (value := figure(row["÷ the faster"]))
    ]
    title = "Time of layerstore beside the fastest other tool"
    return Plot(lines, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2), title, "the fastest other tool").render()
