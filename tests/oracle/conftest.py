"""Where the comparisons happen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import quick_ground


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """One file system for all stacks of the run."""
    with quick_ground() as path:
        yield path
