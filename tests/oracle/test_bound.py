"""On an upper without the flags of renameat2, ours does what kernel overlayfs does on one that has them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounts import KernelMount, OverlayMount, engines
from tests.oracle import bound
from tests.oracle.sides import Side, kernel_side, overlay_side
from tests.oracle.test_scenes import SCENES, Scene, nameless_files, stage
from tests.oracle.union_side import UnionSide
from tests.oracle.walking import Walk

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.skipif(bound.why_not() is not None, reason=str(bound.why_not())),
]

# Without an index, as handles of a FUSE file system mean nothing after its next mount.
UNION_WALKS, MOUNTED_WALKS = 15, 4


@pytest.fixture
def oracle() -> Iterator[Side]:
    side = kernel_side()
    yield side
    side.end_workers()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_union_walks(oracle: Side, ground: Path) -> None:
    """Random walks without a mount of ours."""
    walk = Walk(
        oracle=oracle,
        ours=bound.BoundSide(UnionSide()),
        ground=ground,
        without=bound.CANNOT | {"map_read", "map_write"},
        single_user=True,
        without_index=True,
    )
    for seed in range(UNION_WALKS):
        walk.run(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", engines())
def test_walks(oracle: Side, engine: str, ground: Path) -> None:
    """And through each engine."""
    ours = bound.BoundSide(overlay_side(engine))
    without = bound.CANNOT | ({"copy_range"} if engine == "pyfuse3" else set())
    try:
        walk = Walk(oracle=oracle, ours=ours, ground=ground, without=without, without_index=True)
        for seed in range(MOUNTED_WALKS):
            walk.run(seed)
    finally:
        ours.end_workers()


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene is not nameless_files])
def test_scene(scene: Scene, where: Path, kernel_overlay: Callable[..., KernelMount]) -> None:
    """All but those about nameless files, which such an upper has none of."""
    ours, kernels = (stage(where / name) for name in ("ours", "kernel"))
    kernel_overlay(kernels)
    with bound.bound(ours) as layers, OverlayMount(layers):
        assert scene(layers) == scene(kernels)
