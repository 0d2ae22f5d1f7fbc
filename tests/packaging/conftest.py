"""One booted machine for all tests of the service."""

from collections.abc import Iterator

import pytest

from tests.packaging.machine import Machine, Unavailable, booted_machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A Debian with systemd running and `make install` done in it."""
    booted = booted_machine()
    try:
        made = booted.__enter__()
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield made
    finally:
        booted.__exit__(None, None, None)
