"""A drawing of boxes, words and arrows as an SVG file that reads well on a light and on a dark page.

The page shows through. What stands on the page itself is drawn in `PAGE`, which contrasts equally with white
and black; words inside a box stand on the box's own light colour. No fonts and no styles from outside.
"""

from collections.abc import Sequence
from html import escape

PAGE = "#7a7a7a"
INK = "#1c1c1c"
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def number(value: float) -> str:
    """At most one digit after the point, so that the file is the same on every machine."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """Elements in the order in which they are drawn."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="{FONT}">\n'
            f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n"
        )
        self._elements: list[str] = []

    def add(self, name: str, content: str = "", **attributes: float | str) -> None:
        words = " ".join(
            f'{key.replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
            for key, value in attributes.items()
        )
        self._elements.append(f"<{name} {words}>{content}</{name}>" if content else f"<{name} {words}/>")

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str, *, dashed: bool = False
    ) -> None:
        more = {"stroke_dasharray": "5 4"} if dashed else {}
        self.add("rect", x=x, y=y, width=width, height=height, rx=5, fill=fill, stroke=stroke, **more)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 14,
        fill: str = PAGE,
        anchor: str = "start",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        more: dict[str, str] = {}
        if bold:
            more["font_weight"] = "600"
        if mono:
            more["font_family"] = MONO
        self.add("text", escape(words), x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, **more)

    def line(self, points: Sequence[tuple[float, float]], stroke: str = PAGE, width: float = 1.5) -> None:
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add("polyline", points=path, fill="none", stroke=stroke, stroke_width=width)

    def arrow(self, points: Sequence[tuple[float, float]], stroke: str = PAGE) -> None:
        """A line with a head at its last point; its last part is level or upright."""
        self.line(points, stroke)
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        head = [
            (x1 + 2 * dx, y1 + 2 * dy),
            (x1 - 7 * dx - 5 * dy, y1 - 7 * dy - 5 * dx),
            (x1 - 7 * dx + 5 * dy, y1 - 7 * dy + 5 * dx),
        ]
        self.add("polygon", points=" ".join(f"{number(x)},{number(y)}" for x, y in head), fill=stroke)

    def render(self) -> str:
        return self._head + "\n".join(self._elements) + "\n</svg>\n"
