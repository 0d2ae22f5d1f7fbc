"""Inode numbers: those of the layers where they are unique, and made up elsewhere."""

import pytest

from overlayfs_py.union.inode import InodeNumbers

pytestmark = [pytest.mark.root]


def test_numbers() -> None:
    """Plain for the first, tagged for others, hashed when too large: no two the same, whatever comes when."""
    numbers = InodeNumbers(7)
    large = (1, 2, 256, 1 << 32, (1 << 40) - 1, 1 << 40, 1 << 47, 1 << 48, 1 << 56, 1 << 62, (1 << 64) - 1)
    first = [numbers.number(7, ino) for ino in large]
    numbers.add_layer(8)
    for dev in range(100, 400):
        numbers.meet(dev, b"0/place%d" % dev)
    shown = [numbers.number(dev, ino) for dev in (7, 8, *range(100, 400)) for ino in large]
    assert shown[: len(large)] == first
    assert first[:7] == list(large[:7])
    assert len(set(shown)) == len(shown)
    assert all(0 < number < 1 << 63 for number in shown)


def test_a_file_system_met_later_has_its_number_from_its_place() -> None:
    """So that the next mount, which may meet it first, shows the same."""
    first, second = InodeNumbers(1), InodeNumbers(1)
    second.meet(99, b"elsewhere")
    for numbers in (first, second):
        assert not numbers.knows(7)
        numbers.meet(7, b"0/sub")
        assert numbers.knows(7)
    assert first.number(7, 256) == second.number(7, 256)
    assert second.number(99, 256) != second.number(7, 256)


def test_the_first_layers_numbers_stay() -> None:
    """Also those too large for a tag; another file system's of the same value is another number."""
    numbers = InodeNumbers(1)
    numbers.add_layer(2)
    numbers.add_layer(2)
    assert numbers.number(1, 12345) == 12345
    assert numbers.number(2, 12345) != 12345
    assert len({numbers.number(dev, 1 << 50) for dev in (1, 2)}) == 2
