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


@pytest.mark.fuse
def test_a_change_through_a_mount(where: Path) -> None:
    """What is changed in a workspace's mount is what docker says of the same change in a container."""
    (where / "work").mkdir()
    change = """dir=$(D mount work) && cp new "$dir/new" && cp new "$dir/etc/hosts"; D umount work"""
    script = [change if line == "D cp new work:/new" else line for line in SCRIPTS["change"]]
    script.remove("D cp new work:/etc/hosts")
    steps = play(script, [str(PROGRAM), "--root", str(where / "store")], where / "work", "none")
    docker = [step for step in recorded()["change"] if not step["typed"].startswith("D cp ")]
    assert [step for step in steps if step["typed"] != change] == docker
