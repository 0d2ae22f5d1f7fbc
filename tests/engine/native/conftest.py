"""What the tests of single requests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.native.bench import Bench, opened_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(tmp_path) as made:
        yield made
