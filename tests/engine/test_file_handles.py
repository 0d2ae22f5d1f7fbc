"""File handles (name_to_handle_at): none, as with the kernel's nfs_export=off; pyfuse3's go stale."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayfs_py.syscalls.handles import encode_handle, open_handle
from tests import rawcalls
from tests.mounts import KernelMount, Layers, OverlayMount, make_layers

pytestmark = [pytest.mark.fuse, pytest.mark.root]

Mounter = Callable[..., OverlayMount]


def refusal(root: Path) -> str:
    """What asking for a handle of a file ends with."""
    directory = os.open(root, os.O_RDONLY)
    try:
        encode_handle(directory, b"file")
    except OSError as error:
        return "not supported" if error.errno == errno.EOPNOTSUPP else str(error)
    finally:
        os.close(directory)
    return "given"


def opening(directory: int, kind: int, handle: bytes) -> int:
    """The errno of opening a handle, 0 when it can be."""
    try:
        os.close(open_handle(directory, kind, handle, os.O_RDONLY))
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.fixture
def furnished(layers: Layers) -> Layers:
    (layers.lowers[0] / "file").write_text("content")
    return layers


@pytest.mark.parametrize("engine", ["native"])
def test_none_as_with_the_kernel(
    furnished: Layers, mount: Mounter, where: Path, kernel_overlay: Callable[..., KernelMount]
) -> None:
    (where / "kernel").mkdir()
    theirs = make_layers(where / "kernel")
    (theirs.lowers[0] / "file").write_text("content")
    kernel_overlay(theirs)
    mount(furnished)
    assert refusal(furnished.merged) == refusal(theirs.merged) == "not supported"


@pytest.mark.parametrize("engine", ["pyfuse3"])
def test_stale_once_forgotten(furnished: Layers, mount: Mounter) -> None:
    """pyfuse3 cannot refuse them (decision 0009)."""
    mounted = mount(furnished)
    directory = os.open(furnished.merged, os.O_RDONLY)
    try:
        kind, handle = encode_handle(directory, b"file")
        found = open_handle(directory, kind, handle, os.O_RDONLY)
        assert os.read(found, 100) == b"content"
        os.close(found)
        deadline = time.monotonic() + 10
        while (code := opening(directory, kind, handle)) == 0 and time.monotonic() < deadline:
            rawcalls.remount(mounted.root)
            os.stat(mounted.root)  # with it FORGET is answered
        assert code == errno.ESTALE
    finally:
        os.close(directory)
