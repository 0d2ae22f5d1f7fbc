"""Files of one number in two subvolumes of a lower, through a real mount of each engine and data path."""

import os
from pathlib import Path

import pytest

from tests import images
from tests.mounts import OverlayMount, flavours, make_layers

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.engine]

PLACES = ("s1", "s2")


def _content(place: Path) -> str:
    return f"content of {place.name}\n"


@pytest.mark.parametrize("engine", flavours())
@pytest.mark.parametrize("index", ["on", "off"])
def test_two_files_stay_two(where: Path, engine: str, index: str) -> None:
    """Each is read, written, stat'ed and listed as itself."""
    with images.btrfs(where) as top:
        layers = make_layers(top)
        for name in PLACES:
            place = images.subvolume(layers.lowers[0] / name)
            (place / "f").write_text(_content(place))
            os.link(place / "f", place / "g")
        with OverlayMount(layers, {"index": index}, engine=engine):
            one, two = (layers.merged / name for name in PLACES)
            assert [(place / "f").read_text() for place in (one, two)] == [_content(one), _content(two)]
            numbers = {os.lstat(path).st_ino for path in (layers.merged, one, two, one / "f", two / "f")}
            assert len(numbers) == 5
            for directory in (layers.merged, one, two):
                assert all(entry.inode() == os.lstat(entry).st_ino for entry in os.scandir(directory))
            with open(one / "f", "a", encoding="ascii") as stream:
                stream.write("more\n")
            assert (one / "f").read_text() == _content(one) + "more\n"
            assert (two / "f").read_text() == (two / "g").read_text() == _content(two)
            assert (one / "g").read_text() == _content(one) + ("more\n" if index == "on" else "")
