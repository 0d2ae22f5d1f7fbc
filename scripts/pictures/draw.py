"""Draw the pictures of the documents; see `scripts/draw`."""

import sys
from pathlib import Path

import goals_table
import overview
import plot
from results import layers_run


def main(results: Path) -> None:
    """The pictures go beside `results`, which gets its table of goals."""
    here = results.parent
    (here / "overview.svg").write_text(overview.draw())
    if goals_table.has_figures(results):
        goals_table.write(results)
        (here / "benchmarks.svg").write_text(plot.main_plot(results))
    if layers_run(results):
        (here / "benchmarks-layers.svg").write_text(plot.layers_plot(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
