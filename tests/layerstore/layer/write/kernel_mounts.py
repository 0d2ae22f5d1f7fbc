"""Workspaces made by the kernel's overlayfs, committed, and the committed layer mounted in their place."""

import io
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from layerstore.layer.stack import StackPaths
from layerstore.layer.write.commit import LayerResult, write_layer
from tests import snapshots, trees
from tests.layerstore.layer.tars import unpack
from tests.mounts import KernelMount, LowerLayers, make_layers


class Workspace:
    """Lower layers and an upper over them, mounted by the kernel while the context lasts."""

    def __init__(self, where: Path, *, lowers: int = 1) -> None:
        self.where = where
        self.layers = make_layers(where, lowers=lowers)
        self.lowers = self.layers.lowers
        self.root = self.layers.merged
        self.upper = self.layers.upper

    @classmethod
    def over(cls, where: Path, *lowers: trees.Tree) -> "Workspace":
        """One over these trees, the lowest first; its root directory looks like the lowest's."""
        made = cls(where, lowers=len(lowers))
        for path, tree in zip(reversed(made.lowers), lowers, strict=True):
            trees.build(path, tree)
        shutil.copystat(made.lowers[-1], made.upper)
        return made

    def mounted(self, **options: str) -> KernelMount:
        return KernelMount(self.layers, options)

    @property
    def stack(self) -> StackPaths:
        return StackPaths(
            os.fsencode(self.upper),
            tuple(os.fsencode(path) for path in self.lowers),
            work=os.fsencode(self.layers.work),
        )

    def commit(self, **options: object) -> tuple[bytes, LayerResult]:
        out = io.BytesIO()
        options.setdefault("compression", "none")
        return_value = write_layer(self.stack, out, **options)  # type: ignore[arg-type]
        return out.getvalue(), return_value

    def tree(self) -> dict[bytes, snapshots.Facts]:
        return tree_of(self.root)

    def committed_tree(self, tar: bytes) -> dict[bytes, snapshots.Facts]:
        """The tree of the lowers under the unpacked layer, read through the kernel."""
        place = Path(tempfile.mkdtemp(dir=self.where))
        layer, merged = place / "committed", place / "again"
        unpack(tar, layer, lowers=[os.fsencode(path) for path in self.lowers])
        merged.mkdir()
        lowers = (layer, *self.lowers)
        with ExitStack() as stack:
            stack.enter_context(KernelMount(LowerLayers(lowers=lowers, merged=merged)))
            return tree_of(merged)


def tree_of(root: Path) -> dict[bytes, snapshots.Facts]:
    """Two mounts have other inode numbers, and directories other sizes and link counts; hard-link
    groups stay.
    """
    return {path: _comparable(facts) for path, facts in snapshots.facts(snapshots.directory(root)).items()}


def _comparable(facts: snapshots.Facts) -> snapshots.Facts:
    kept = {
        key: value
        for key, value in facts.items()
        if key not in ("d_ino right", "d_type right", "nlink", "ino")
    }
    if kept["type"] == "d":
        kept["size"] = 0
        kept["links"] = ()
    return kept
