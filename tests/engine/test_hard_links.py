"""Removing names of a lower's hard links with index=on, through each engine and data path."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.mounts import OverlayMount, flavours, make_layers

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

SIZE, COUNT = 1 << 20, 20


def _in_kib(*paths: Path) -> int:
    output = subprocess.run(["du", "-skc", *paths], capture_output=True, text=True, check=True).stdout
    return int(output.split()[-2])


@pytest.mark.parametrize("engine", flavours())
@pytest.mark.parametrize("metacopy", ["off", "on"])
def test_rm_copies_no_data(where: Path, engine: str, metacopy: str) -> None:
    """20 files of 1 MiB with two names each; what is left counts one, before and after a remount."""
    layers = make_layers(where)
    low = layers.lowers[0]
    for number in range(COUNT):
        (low / f"a{number}").write_bytes(b"x" * SIZE)
        os.link(low / f"a{number}", low / f"b{number}")
    options = {"index": "on", "metacopy": metacopy}
    with OverlayMount(layers, options, engine=engine):
        held = os.open(layers.merged / "a0", os.O_RDONLY)
        try:
            for number in range(COUNT):
                assert os.stat(layers.merged / f"b{number}").st_nlink == 2
                os.unlink(layers.merged / f"a{number}")
                assert os.stat(layers.merged / f"b{number}").st_nlink == 1
            assert _in_kib(layers.upper, layers.work) < SIZE // 1024
            assert os.pread(held, 5, 0) == b"xxxxx"
            os.fchmod(held, 0o600)
            assert os.stat(layers.merged / "b0").st_mode & 0o777 == 0o600
        finally:
            os.close(held)
    with OverlayMount(layers, options, engine=engine):
        for number in range(COUNT):
            status = os.stat(layers.merged / f"b{number}")
            assert (status.st_nlink, status.st_size) == (1, SIZE)
            assert status.st_mode & 0o777 == (0o600 if number == 0 else 0o644)
