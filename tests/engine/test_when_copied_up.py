"""When a file opened for writing is copied up: at the open, as by the kernel, where opens are asked for."""

import os
from collections.abc import Callable

import pytest

from tests.mounts import Layers, OverlayMount, flavours, status

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]


@pytest.fixture(params=flavours())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_at_the_open_or_at_the_first_write(layers: Layers, mount: Mounter, flags: int) -> None:
    (layers.lowers[0] / "file").write_bytes(b"lower")
    mounted = mount(layers)
    fd = os.open(layers.merged / "file", flags)
    try:
        assert (layers.upper / "file").exists() != status(mounted)["engine"]["no_open"]
        os.write(fd, b"upper")
    finally:
        os.close(fd)
    assert (layers.upper / "file").exists()


def test_not_at_an_open_for_reading(layers: Layers, mount: Mounter) -> None:
    (layers.lowers[0] / "file").write_bytes(b"lower")
    mount(layers)
    assert (layers.merged / "file").read_bytes() == b"lower"
    assert not (layers.upper / "file").exists()
