"""Several processes list a directory while another changes it: after a change every new listing shows it."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine import listers
from tests.mounts import Layers, OverlayMount, flavours

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow]

Mounter = Callable[..., OverlayMount]
_LISTERS = 3
_ROUNDS = 600
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def command(*arguments: str) -> list[str]:
    return [sys.executable, listers.__file__, *arguments]


def test_a_listing_begun_after_a_change_shows_it(layers: Layers, mount: Mounter) -> None:
    """Each with a name made, renamed or removed just before, or with all inodes dropped at any moment."""
    (layers.lowers[0] / "directory").mkdir()
    for n in range(0, listers.NAMES, 2):
        (layers.lowers[0] / "directory" / f"s{n}").touch()
    mount(layers)
    directory = layers.merged / "directory"
    with ExitStack() as stack:
        for number in range(_LISTERS):
            lister = subprocess.Popen(command("list", str(directory), str(number)), env=_ENVIRONMENT)
            stack.enter_context(lister)
            stack.callback(lister.kill)
        changing = subprocess.run(
            command("change", str(directory), str(_ROUNDS), "1"),
            stdout=subprocess.PIPE,
            check=True,
            timeout=300,
            text=True,
            env=_ENVIRONMENT,
        )
    wrong = changing.stdout.splitlines()
    assert not wrong, f"{len(wrong)} of {_ROUNDS} times, first: {wrong[0]}"
