"""File capabilities of a lower mounted nosuid: no copy has them, and no change fails for that."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rawcalls, trees
from tests.mounts import KernelMount, Layers, OverlayMount, flavours

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

CAPABILITY = "security.capability"


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def _write_twice(path: Path) -> None:
    with path.open("r+b", buffering=0) as stream:
        stream.write(b"X")
        os.chmod(path, 0o700)
        stream.write(b"Y")


def _chown_a_copy(path: Path) -> None:
    path.chmod(0o711)
    os.chown(path, 5, -1)


def _append_to_a_copy(path: Path) -> None:
    path.chmod(0o711)
    _append(path)


def _resize(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(2)


def _allocate(path: Path) -> None:
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, 5000)


def _remove_twice(path: Path) -> None:
    os.removexattr(path, CAPABILITY)
    os.removexattr(path, CAPABILITY)


CHANGES: dict[str, Callable[[Path], object]] = {
    "append": _append,
    "write, chmod, write": _write_twice,
    "overwrite": lambda path: path.write_bytes(b"new"),
    "truncate": lambda path: os.truncate(path, 3),
    "ftruncate": _resize,
    "fallocate": _allocate,
    "chown": lambda path: os.chown(path, 5, 6),
    "chown of a copy": _chown_a_copy,
    "append to a copy": _append_to_a_copy,
    "link": lambda path: os.link(path, path.with_name("linked")),
    "rename": lambda path: path.rename(path.with_name("renamed")),
    "setcap": lambda path: os.setxattr(path, CAPABILITY, trees.NET_RAW),
    "setcap -r": lambda path: os.removexattr(path, CAPABILITY),
    "setcap -r twice": _remove_twice,
}


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine there is, with each of its data paths."""
    return str(request.param)


@pytest.fixture
def nosuid(layers: Layers) -> Iterator[Layers]:
    """A lower mounted nosuid with a file with a capability for each change."""
    lower = layers.lowers[0]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,mode=755", "tmpfs", lower], check=True, timeout=30)
    for name in CHANGES:
        (lower / name).mkdir()
        (lower / name / "f").write_bytes(b"lower")
        os.setxattr(lower / name / "f", CAPABILITY, trees.NET_RAW)
    yield layers
    subprocess.run(["umount", "-l", lower], check=True, timeout=30)


def _outcomes(top: Path) -> dict[str, str]:
    return {
        name: rawcalls.outcome(lambda change=change, path=top / name / "f": change(path))  # type: ignore[misc]
        for name, change in CHANGES.items()
    }


@pytest.mark.parametrize("metacopy", ["off", "on"])
def test_changes_go_as_the_kernels(nosuid: Layers, engine: str, metacopy: str) -> None:
    """Whatever drops the capability before it changes something finds it gone, which is no error."""
    options = {"index": "off", "redirect_dir": metacopy, "metacopy": metacopy}
    with KernelMount(nosuid, options):
        wanted = _outcomes(nosuid.merged)
    subprocess.run(["rm", "-rf", nosuid.upper, nosuid.work], check=True, timeout=30)
    nosuid.upper.mkdir()
    nosuid.work.mkdir()
    with OverlayMount(nosuid, options, engine=engine):
        assert _outcomes(nosuid.merged) == wanted
    granted = [path for path in nosuid.upper.rglob("*") if CAPABILITY in os.listxattr(path)]
    assert granted == [nosuid.upper / "setcap/f"]
