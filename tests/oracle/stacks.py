"""A layer stack to compare two file systems on: literal lowers, grown lowers, mount options."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import trees
from tests.mounts import KernelMount, Layers
from tests.oracle.operations import Interpreter, Operation
from tests.oracle.vfs import OsVfs


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """`lowers` topmost first; `grown`: operations whose kernel-made uppers lie above them, in order."""

    lowers: tuple[trees.Tree, ...]
    grown: tuple[tuple[Operation, ...], ...] = ()
    redirect_dir: str = "off"
    metacopy: str = "off"
    index: str = "off"
    root_mode: int = 0o755

    def options(self) -> dict[str, str]:
        """The mount options, the same for both sides."""
        return {"redirect_dir": self.redirect_dir, "metacopy": self.metacopy, "index": self.index}

    def make_lowers(self, where: Path) -> tuple[Path, ...]:
        """The lower directories, topmost first; both sides share them, as origins need."""
        made: tuple[Path, ...] = ()
        for number, tree in enumerate(self.lowers):
            directory = where / f"l{number}"
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)
            trees.build(directory, tree)
            made += (directory,)
        for number, operations in enumerate(self.grown):
            made = (_grow(where / f"g{number}", made, operations), *made)
        return made

    def make_side(self, where: Path, lowers: tuple[Path, ...]) -> Layers:
        """Upper, work and mount point for one side."""
        where.mkdir(mode=0o755)
        for name in ("upper", "work", "merged"):
            (where / name).mkdir(mode=0o755)
        # Both uppers must start alike: the root's time and mode show through the mount.
        (where / "upper").chmod(self.root_mode)
        os.utime(where / "upper", ns=(trees.EPOCH_NS, trees.EPOCH_NS))
        return Layers(lowers=lowers, upper=where / "upper", work=where / "work", merged=where / "merged")


GROWING_OPTIONS: Mapping[str, str] = {"redirect_dir": "on", "metacopy": "on", "index": "off"}


def _grow(where: Path, below: tuple[Path, ...], operations: tuple[Operation, ...]) -> Path:
    """An upper as kernel overlayfs leaves it after some operations: real redirects and metacopies."""
    for part in ("", "upper", "work", "merged"):
        (where / part).mkdir(mode=0o755)
    layers = Layers(lowers=below, upper=where / "upper", work=where / "work", merged=where / "merged")
    with KernelMount(layers, GROWING_OPTIONS) as mount:
        interpreter = Interpreter(OsVfs(mount.root))
        for _user, name, *arguments in operations:
            interpreter.run(str(name), tuple(arguments))
        interpreter.close_all()
    _settle_times(where / "upper")
    return where / "upper"


def _settle_times(top: Path) -> None:
    """Times of the past, so that a later change of them cannot be missed."""
    stamp = "2001-09-09 01:46:40.5"
    subprocess.run(["find", str(top), "-exec", "touch", "-h", "-d", stamp, "{}", "+"], check=True, timeout=60)
