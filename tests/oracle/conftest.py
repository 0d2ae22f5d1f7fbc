"""Here an engine is taken with each of its data paths."""

import pytest

from tests.mounts import flavours


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine there is, and data=passthrough."""
    return str(request.param)
