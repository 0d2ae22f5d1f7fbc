"""A store of its own for each test."""

from pathlib import Path

import pytest

from tests.layerstore.commands import ROOTFS, Cli, tarball


@pytest.fixture
def cli(where: Path) -> Cli:
    """The command line on an empty store."""
    return Cli(where / "store")


@pytest.fixture
def base(cli: Cli) -> Cli:
    """The command line on a store that has the image ``base:1``."""
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    return cli
