"""A union without a mount, on literal trees."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from overlayfs_py.union import descriptors
from overlayfs_py.union.overlay import Overlay
from tests import snapshots, trees
from tests.mounts import KernelMount, Layers, LowerLayers, scratch
from tests.oracle.overlay_vfs import OverlayVfs
from tests.oracle.union_side import OverlayReader, union_options
from tests.snapshots import Snapshot, Status
from tests.union.crowds import SHARE

pytestmark = [pytest.mark.root]


class Union(OverlayVfs):
    """An open union with its layers: everything a program can do, and looks at the layers."""

    def __init__(self, layers: LowerLayers, options: dict[str, str]) -> None:
        self.layers = layers
        self.options = options
        super().__init__(Overlay.open(union_options(layers, options)))

    def reopen(self) -> "Union":
        """Close and open again, as a remount; this object is then the new one."""
        self.close_all_layers()
        Union.__init__(self, self.layers, self.options)
        return self

    def reopen_with(self, **changes: object) -> "Union":
        """As `reopen`, with other `UnionOptions`, until the next `reopen`."""
        options = replace(self.overlay.options, **changes)  # type: ignore[arg-type]
        self.close_all_layers()
        OverlayVfs.__init__(self, Overlay.open(options))
        return self

    def now_and_reopened(self) -> Iterator["Union"]:
        """For rules that hold at once and after a remount."""
        yield self
        yield self.reopen()

    def close_all_layers(self) -> None:
        self.close_all()
        self.overlay.close()

    def names(self, path: bytes = b"") -> list[bytes]:
        return sorted(dirent.name for dirent in OverlayReader(self).scan(path))

    def content(self, path: bytes) -> bytes:
        return OverlayReader(self).content(path)

    def write_file(self, path: bytes, data: bytes, mode: int = 0o644) -> None:
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        self.pwrite(fd, data, 0)
        self.close(fd)

    def lstat(self, path: bytes) -> Status:
        return self.status(path, False)

    def exists(self, path: bytes) -> bool:
        try:
            self.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def snapshot(self) -> Snapshot:
        return snapshots.take(OverlayReader(self))

    @property
    def upper(self) -> Path:
        assert isinstance(self.layers, Layers)
        return self.layers.upper

    @property
    def work(self) -> Path:
        assert isinstance(self.layers, Layers)
        return self.layers.work

    def upper_xattrs(self, path: str) -> dict[str, bytes]:
        where = self.upper / path
        names = os.listxattr(where, follow_symlinks=False)
        return {name: os.getxattr(where, name, follow_symlinks=False) for name in names}

    def leftovers(self) -> list[str]:
        """What lies in the work directory although nothing is under way."""
        return os.listdir(self.work / "work")

    def kernel_snapshot(self) -> Snapshot:
        """The same layers by the kernel; the union is closed by it."""
        self.close_all_layers()
        with KernelMount(self.layers, self.options) as kernel:
            return snapshots.directory(kernel.root)


@contextmanager
def fails(code: int) -> Iterator[None]:
    """Exactly this errno is raised within."""
    with pytest.raises(OSError, match=r".") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


Opener = Callable[..., Union]


@pytest.fixture
def open_union(ground: Path) -> Iterator[Opener]:
    """open_union(lower, lower..., upper={...}, redirect_dir="on") -> Union; lowers topmost first."""
    with ExitStack() as cleanup:
        where = cleanup.enter_context(scratch(under=ground))
        opened: list[Union] = []

        def start(*lowers: trees.Tree, upper: trees.Tree | None = None, **options: str) -> Union:
            layers = _make(where / str(len(opened)), lowers, upper or {})
            union = Union(layers, {"index": "off", **options})
            cleanup.callback(union.close_all_layers)
            opened.append(union)
            return union

        yield start


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cache keeps only `crowds.SHARE` of them."""
    monkeypatch.setattr(descriptors, "share", lambda: SHARE)


def _make(where: Path, lowers: Sequence[trees.Tree], upper: trees.Tree) -> Layers:
    where.mkdir()
    made = []
    for number, tree in enumerate(lowers or ({},)):
        path = where / f"lower{number}"
        path.mkdir()
        trees.build(path, tree)
        made.append(path)
    for name in ("upper", "work", "merged"):
        (where / name).mkdir()
    trees.build(where / "upper", upper)
    return Layers(lowers=tuple(made), upper=where / "upper", work=where / "work", merged=where / "merged")


def is_whiteout(path: Path) -> bool:
    st = path.lstat()
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0
