"""Two processes at once: an answer that one has not taken in yet, while another makes it wrong.

The kernel voids such answers itself for some changes (fi->attr_version rises) and not for others; those the
engine has to make known, or the old attributes stay for the whole attribute timeout.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.engine import racers
from tests.mounts import Layers, OverlayMount

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

_TIMES = "250"


def command(*arguments: str) -> list[str]:
    """One of the processes."""
    return [sys.executable, racers.__file__, *arguments]


@contextmanager
def looking(shared: Path, path: Path, how: str = "ask") -> Iterator[None]:
    """Processes that are told the attributes of `path` all the time."""
    with ExitStack() as stack:
        parts = [("look", str(shared), str(looker), str(path), how) for looker in range(racers.LOOKERS)]
        for part in [*parts, ("pause",)]:
            looker = stack.enter_context(subprocess.Popen(command(*part)))
            stack.callback(looker.kill)
        yield


_OF_DIRECTORIES = ("entries", "directories", "renames", "links", "attributes", "modes")
_OF_FILES = ("renames", "links", "attributes", "modes", "contents", "mapped")


@pytest.mark.parametrize(
    ("how", "subject", "change"),
    [
        *(("ask", ".", change) for change in _OF_DIRECTORIES),
        *(("ask", "file", change) for change in _OF_FILES),
        ("set", "file", "mapped"),
        ("link", "file", "mapped"),
    ],
)
def test_attributes(
    layers: Layers, mounted: OverlayMount, where: Path, how: str, subject: str, change: str
) -> None:
    """Whoever was told them meanwhile, after a change they are the new ones."""
    directory = layers.merged / "directory"
    directory.mkdir()
    (directory / "file").write_bytes(bytes(4096))
    shared = where / "truce"
    shared.write_bytes(bytes(4096))
    with looking(shared, directory / subject, how):
        paths = [str(shared), str(directory), str(layers.upper / "directory")]
        changing = subprocess.run(
            command("change", *paths, subject, change, _TIMES),
            stdout=subprocess.PIPE,
            check=True,
            timeout=200,
            text=True,
        )
    wrong = changing.stdout.splitlines()
    assert not wrong, f"{len(wrong)} of {_TIMES} times, first: {wrong[0]}"
