"""What must hold before anything is mounted: layers that may not be, and very many of them."""

import os

import pytest

from overlayfs_py.errors import OverlayError
from overlayfs_py.options import UnionOptions
from overlayfs_py.union.overlay import Overlay
from tests.mounts import Layers
from tests.trees import Dir
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]


def test_a_thousand_lowers_with_long_paths(open_union: Opener) -> None:
    """1,000 lowers of 100-byte paths open; a name in the last is found, one in all is the first's."""
    union = open_union()
    top = union.layers.merged
    lowers = []
    for number in range(1000):
        lower = top / f"{number:04}{'l' * 90}"
        lower.mkdir()
        (lower / "all").write_bytes(b"%d" % number)
        (lower / f"own{number}").write_bytes(b"x")
        lowers.append(lower)
    assert len(str(lowers[0])) >= 100
    layers = Layers(lowers=tuple(lowers), upper=union.upper, work=union.work, merged=top)
    union.close_all_layers()
    deep = Union(layers, {"index": "off"})
    try:
        assert deep.content(b"all") == b"0"
        assert deep.content(b"own999") == b"x"
        assert len(deep.names()) == 1001
        deep.write_file(b"own500", b"new")
        assert deep.content(b"own500") == b"new"
    finally:
        deep.close_all_layers()


@pytest.mark.parametrize(
    "change",
    [
        {"lower": (b"/nonexistent/lower",)},
        {"upper": b"/nonexistent/upper"},
        {"work": b"/nonexistent/work"},
        {"work": None},
        {"lower": ()},
        {"work": b"/proc/self"},
    ],
    ids=lambda change: "-".join(f"{key}={value}" for key, value in change.items()),
)
def test_layers_that_cannot_be(open_union: Opener, change: dict[str, object]) -> None:
    """One of the package's own errors that names the directory or the option; never a bare OSError."""
    union = open_union()
    options = {
        "lower": tuple(os.fsencode(path) for path in union.layers.lowers),
        "upper": os.fsencode(union.upper),
        "work": os.fsencode(union.layers.merged),
        **change,
    }
    with pytest.raises(OverlayError, match=r"."):
        Overlay.open(UnionOptions(**options)).close()  # type: ignore[arg-type]


def test_upper_inside_a_lower_is_refused(open_union: Opener) -> None:
    """The kernel refuses overlapping layers; so does the union, naming one."""
    layers = open_union({"up": Dir()}).layers
    inside = Layers(
        lowers=layers.lowers, upper=layers.lowers[0] / "up", work=layers.merged, merged=layers.merged
    )
    with pytest.raises(OverlayError, match="up"):
        Union(inside, {})
