"""The side that is `union.Overlay` in this process: no mount, root alone, fast."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Overlay
from tests import rawcalls
from tests.mounts import Layers, LowerLayers
from tests.oracle.operations import Interpreter, Outcome
from tests.oracle.overlay_vfs import OverlayVfs
from tests.snapshots import Dirent, Reader, Status


def union_options(layers: LowerLayers, options: Mapping[str, str]) -> UnionOptions:
    """Mount options as the union takes them."""
    above = (layers.upper, layers.work) if isinstance(layers, Layers) else None
    return UnionOptions(
        lower=tuple(os.fsencode(path) for path in layers.lowers),
        upper=os.fsencode(above[0]) if above else None,
        work=os.fsencode(above[1]) if above else None,
        redirect_dir=options.get("redirect_dir", "off"),
        metacopy=options.get("metacopy") == "on",
        index=options.get("index") == "on",
        userxattr="userxattr" in options,
        volatile=options.get("volatile") == "on",
        aufs=options.get("aufs", "auto"),
    )


@dataclass(frozen=True)
class OverlayReader:
    """Takes snapshots through the union."""

    vfs: OverlayVfs

    def scan(self, path: bytes) -> list[Dirent]:
        fd = self.vfs.open(path, os.O_RDONLY | os.O_DIRECTORY, 0)
        try:
            return self.vfs.dirents(fd)
        finally:
            self.vfs.close(fd)

    def status(self, path: bytes) -> Status:
        return self.vfs.status(path, False)

    def target(self, path: bytes) -> bytes:
        return self.vfs.target(path)

    def content(self, path: bytes) -> bytes:
        fd = self.vfs.open(path, os.O_RDONLY, 0)
        try:
            return self.vfs.pread(fd, self.vfs.fstatus(fd).size, 0)
        finally:
            self.vfs.close(fd)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return {name: self.vfs.getxattr(path, name) for name in self.vfs.listxattr(path)}


class UnionSide:
    """`union.Overlay`, driven directly."""

    name = "union"
    moves_times = False

    def __init__(self) -> None:
        self._overlay: Overlay | None = None

    def start(self, layers: Layers, options: Mapping[str, str]) -> None:
        self._overlay = Overlay.open(union_options(layers, options))
        self.vfs = OverlayVfs(self._overlay)
        self._interpreter = Interpreter(self.vfs)

    def stop(self) -> None:
        overlay, self._overlay = self._overlay, None
        if overlay is not None:
            self._interpreter.close_all()
            self.vfs.close_all()
            self.vfs.forget()
            overlay.close()

    def run(self, user: int, name: str, arguments: tuple[object, ...]) -> Outcome:
        assert user == 0, "permission checks are the kernel's"
        return self._interpreter.run(name, arguments)

    def forget(self) -> None:
        self.vfs.forget()

    def reader(self) -> Reader:
        return OverlayReader(self.vfs)

    def probe(self, path: bytes) -> Status | str:
        try:
            return self.vfs.status(path, False)
        except OSError as error:
            return rawcalls.errno_name(error)

    def explain(self) -> str:
        """Where the last error was raised."""
        return " <- ".join(reversed(self._interpreter.raised_at))

    def end_workers(self) -> None:
        """There are none."""
