"""Words that texts of this project avoid, and where they stand."""

import re
from collections.abc import Iterable
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def places(pattern: str, better: str, texts: Iterable[Path]) -> list[str]:
    """The lines of `texts` with a match of `pattern`, in any case, each with what to say instead."""
    found = re.compile(pattern, re.IGNORECASE)
    return [
        f"{path.relative_to(TOP)}:{number} {line.strip()}: say {better}"
        for path in texts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if found.search(line)
    ]
