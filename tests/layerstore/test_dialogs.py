"""Every line of five kinds of tutorials, and of prune: what docker said is what we say."""

from pathlib import Path

import pytest

from tests.layerstore.commands import PROGRAM
from tests.layerstore.dialogs import SCRIPTS, play, recorded
from tests.layerstore.transport.servers import docker_registry, needs_registry


@needs_registry
@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_dialog(name: str, where: Path) -> None:
    for directory in ("work", "registry"):
        (where / directory).mkdir()
    with docker_registry(where / "registry") as host:
        steps = play(SCRIPTS[name], [str(PROGRAM), "--root", str(where / "store")], where / "work", host)
    assert [step["typed"] for step in steps] == [step["typed"] for step in recorded()[name]]
    for ours, docker in zip(steps, recorded()[name], strict=True):
        assert ours == docker
