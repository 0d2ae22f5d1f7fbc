"""The pictures of the documents, and what the benchmarks' tables are turned into."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ("overview.svg", "benchmarks.svg", "benchmarks-layers.svg")
SVG = "{http://www.w3.org/2000/svg}"
LIGHT, DARK = "#ffffff", "#0d1117"  # GitHub's pages


def draw(directory: Path) -> Path:
    """The documents' pictures, made in `directory` from a copy of the tables."""
    results = directory / "benchmarks.md"
    shutil.copy(ROOT / "docs/benchmarks.md", results)
    subprocess.run([ROOT / "scripts/draw", results], check=True)
    return results


def test_the_committed_pictures_are_what_the_script_draws(tmp_path: Path) -> None:
    """So is the table of goals."""
    results = draw(tmp_path)
    assert results.read_text() == (ROOT / "docs/benchmarks.md").read_text(), "run scripts/draw"
    for name in PICTURES:
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), "run scripts/draw"


def luminance(colour: str) -> float:
    """Of WCAG 2, for a colour in hexadecimal."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_reads_on_a_light_and_on_a_dark_page(name: str) -> None:
    """Words have a contrast of 4 with the page, light or dark, or with the box that they stand in; nothing is
    loaded from outside.
    """
    root = ElementTree.parse(ROOT / "docs" / name).getroot()
    fills = {box.attrib["fill"] for box in root.iter(f"{SVG}rect")} - {"none"}
    for text in root.iter(f"{SVG}text"):
        colour = text.attrib["fill"]
        on_the_page = min(contrast(colour, page) for page in (LIGHT, DARK))
        in_a_box = min((contrast(colour, fill) for fill in fills), default=0.0)
        assert max(on_the_page, in_a_box) >= 4, text.text
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<image|<style", ElementTree.tostring(root).decode()
    )


def test_the_table_of_goals_counts_what_the_run_counted() -> None:
    """`cached` and `passthrough` reach as many goals as the run's own verdict says."""
    text = (ROOT / "docs/benchmarks.md").read_text()
    verdict = re.findall(r"^- `(?:cached|passthrough)` reaches (\d+ of \d+) goals$", text, flags=re.MULTILINE)
    total = next(line for line in text.splitlines() if line.startswith("| **all**"))
    assert re.findall(r"\*\*(\d+ of \d+)\*\*", total) == verdict


def test_a_table_that_is_written_is_drawn(tmp_path: Path) -> None:
    """`--write` replaces what stands between the marks, then the plots follow the new figures."""
    results = draw(tmp_path)
    before = (tmp_path / "benchmarks.svg").read_text()
    script = (
        "import sys; from pathlib import Path; import document; path = Path(sys.argv[1])\n"
        "begin, end = '<!-- bench: begin table -->', '<!-- bench: end table -->'\n"
        "table = path.read_text().split(begin)[1].split(end)[0].strip().replace('| 4.47 |', '| 1.50 |')\n"
        "document.write_between_marks(path, 'table', begin, end, table.replace('**4.47**', '1.50'))\n"
        "document.redraw(path)\n"
    )
    command = [str(ROOT / ".venv/bin/python"), "-c", script, str(results)]
    subprocess.run(
        command, check=True, env={"PYTHONPATH": str(ROOT / "scripts/bench"), "PATH": "/usr/bin:/bin"}
    )
    assert (tmp_path / "benchmarks.svg").read_text() != before
    assert "| **52 of 62** |" in results.read_text()


def test_a_run_of_few_contenders_leaves_the_plot(tmp_path: Path) -> None:
    """A table without the columns that the plot compares is no error."""
    results = draw(tmp_path)
    results.write_text(results.read_text().replace("passthrough ÷ kernel", "pyfuse3 ÷ kernel"))
    before = results.read_text(), (tmp_path / "benchmarks.svg").read_text()
    subprocess.run([ROOT / "scripts/draw", results], check=True)
    assert (results.read_text(), (tmp_path / "benchmarks.svg").read_text()) == before
