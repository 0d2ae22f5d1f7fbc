"""chattr +i and +a: each operation on what has the flag in a lower, in the upper, and in a merged directory
is refused as kernel overlayfs refuses it.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import rawcalls
from tests.mounts import KernelMount, Layers, OverlayMount, flavours, make_layers, status

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

Action = Callable[[Path], object]


def _written(flags: int, data: bytes = b"new") -> Action:
    def write(path: Path) -> None:
        fd = os.open(path, flags)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    return write


def _renamed(source: str, target: str, flags: int = 0) -> Action:
    return lambda top: rawcalls.renameat2(os.fsencode(top / source), os.fsencode(top / target), flags)


# Of the file f, beside which lie the file g and the directory out.
OF_FILES: dict[str, Action] = {
    "read": lambda top: (top / "f").read_bytes(),
    "append": lambda top: _written(os.O_WRONLY | os.O_APPEND)(top / "f"),
    "overwrite": lambda top: _written(os.O_WRONLY)(top / "f"),
    "open to truncate": lambda top: _written(os.O_WRONLY | os.O_TRUNC)(top / "f"),
    "truncate": lambda top: os.truncate(top / "f", 1),
    "chmod": lambda top: (top / "f").chmod(0o600),
    "chown": lambda top: os.chown(top / "f", 1, 2),
    "touch": lambda top: os.utime(top / "f"),
    "set times": lambda top: os.utime(top / "f", (1, 2)),
    "setxattr": lambda top: os.setxattr(top / "f", "user.two", b"2"),
    "removexattr": lambda top: os.removexattr(top / "f", "user.one"),
    "unlink": lambda top: (top / "f").unlink(),
    "rename": _renamed("f", "new"),
    "rename over": _renamed("g", "f"),
    "exchange": _renamed("g", "f", rawcalls.RENAME_EXCHANGE),
    "link": lambda top: os.link(top / "f", top / "new"),
}
# Of the directory d, which holds the file c and the empty directory e.
OF_DIRECTORIES: dict[str, Action] = {
    "list": lambda top: sorted(os.listdir(top / "d")),
    "create": lambda top: (top / "d/new").touch(),
    "mkdir": lambda top: (top / "d/new").mkdir(),
    "symlink": lambda top: os.symlink("x", top / "d/new"),
    "create what is there": lambda top: (top / "d/c").touch(exist_ok=False),
    "unlink in it": lambda top: (top / "d/c").unlink(),
    "rmdir in it": lambda top: (top / "d/e").rmdir(),
    "rmdir of it, full": lambda top: (top / "d").rmdir(),
    "rmdir of an empty one": lambda top: (top / "e").rmdir(),
    "rename over an empty one": _renamed("out", "e"),
    "rename of it": _renamed("d", "new"),
    "rename into it": _renamed("g", "d/new"),
    "rename over in it": _renamed("g", "d/c"),
    "rename out of it": _renamed("d/c", "out/new"),
    "rename within": _renamed("d/c", "d/new"),
    "link into it": lambda top: os.link(top / "g", top / "d/new"),
    "link out of it": lambda top: os.link(top / "d/c", top / "out/new"),
    "write below": lambda top: _written(os.O_WRONLY | os.O_APPEND)(top / "d/c"),
    "chmod below": lambda top: (top / "d/c").chmod(0o600),
    "chmod of it": lambda top: (top / "d").chmod(0o700),
    "touch of it": lambda top: os.utime(top / "d"),
    "times of it": lambda top: os.utime(top / "d", (1, 2)),
    "setxattr of it": lambda top: os.setxattr(top / "d", "user.two", b"2"),
}
OPERATIONS = {**OF_FILES, **OF_DIRECTORIES}
FLAGGED = ("f", "d", "e")


def _chattr(flag: str, *paths: Path) -> None:
    subprocess.run(["chattr", flag, *paths], check=True, capture_output=True, timeout=30)


def _fill(lower: Path) -> None:
    for name in OPERATIONS:
        top = lower / name
        for directory in ("d/e", "e", "out"):
            (top / directory).mkdir(parents=True)
        for file in ("f", "g", "d/c"):
            (top / file).write_bytes(b"lower")
        os.setxattr(top / "f", "user.one", b"1")


@pytest.fixture
def kernels_and_ours(where: Path) -> Iterator[tuple[Layers, Layers]]:
    """One lower, two uppers; no flag stays anywhere."""
    layers = []
    for name in ("kernel", "ours"):
        (where / name).mkdir()
        layers.append(make_layers(where / name))
    _fill(layers[0].lowers[0])
    yield (
        layers[0],
        Layers(lowers=layers[0].lowers, upper=layers[1].upper, work=layers[1].work, merged=layers[1].merged),
    )
    subprocess.run(["chattr", "-R", "-f", "-ia", where], check=False, capture_output=True, timeout=60)


def _prepare(top: Path, place: str, flag: str) -> None:
    """What has to be done through the mount."""
    for name in OPERATIONS:
        if place == "merged":
            (top / name / "d/c").chmod(0o640)
        elif place == "upper":
            _chattr(flag, *(top / name / each for each in FLAGGED))


def _outcomes(top: Path, *, late: bool = False) -> dict[str, str]:
    """`late`: what write(2) has taken is refused when it is written back, for which Linux has EIO alone."""
    found = {name: rawcalls.outcome(partial(action, top / name)) for name, action in OPERATIONS.items()}
    return {name: "EPERM" if late and outcome == "EIO" else outcome for name, outcome in found.items()}


def _shown(top: Path) -> dict[str, str]:
    """What lsattr says of both flags."""
    paths = [top / name / each for name in OPERATIONS for each in FLAGGED if (top / name / each).exists()]
    listed = subprocess.run(
        ["lsattr", "-d", *paths], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return {
        line.split()[-1].removeprefix(str(top)): "".join(sorted(set(line.split()[0]) & set("ia")))
        for line in listed.splitlines()
    }


@pytest.mark.parametrize("flag", ["+i", "+a"])
@pytest.mark.parametrize("place", ["lower", "merged", "upper"])
@pytest.mark.parametrize("flavour", flavours())
def test_refused_as_by_the_kernel(
    kernels_and_ours: tuple[Layers, Layers], flavour: str, place: str, flag: str
) -> None:
    kernels, ours = kernels_and_ours
    options = {"index": "off", "redirect_dir": "on"}
    lower = kernels.lowers[0]
    if place != "upper":
        _chattr(flag, *(lower / name / each for name in OPERATIONS for each in FLAGGED))
    with KernelMount(kernels, options):
        _prepare(kernels.merged, place, flag)
        wanted, shown = _outcomes(kernels.merged), _shown(kernels.merged)
    assert errno.errorcode[errno.EPERM] in wanted.values()
    with OverlayMount(ours, options, engine=flavour) as mount:
        engine = status(mount)["engine"]
        if not engine["file_flags"]:
            if place == "upper":
                pytest.skip("the engine sets no flags")
            shown = {}
        _prepare(ours.merged, place, flag)
        assert _outcomes(ours.merged, late=engine["writeback"]) == wanted
        assert not shown or _shown(ours.merged) == shown
    with KernelMount(ours, options):
        assert not shown or _shown(ours.merged) == shown
    with OverlayMount(kernels, options, engine=flavour):
        assert not shown or _shown(kernels.merged) == shown
