"""A member's bytes in its file: extents, holes, and that nothing is lost by beginning with the disk early."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.layer.tar.entry import Entry
from layerstore.layer.unpack import filling


def pieces(data: bytes, size: int) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + size] for at in range(0, len(data), size))


def filled(path: Path, entry: Entry, data: bytes, size: int) -> tuple[bytes, list[int]]:
    reported: list[int] = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        filling.fill(fd, entry, pieces(data, size), reported.append)
    finally:
        os.close(fd)
    return path.read_bytes(), reported


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_plain(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "EAGER", 1500)
    data = os.urandom(20_000)
    content, reported = filled(tmp_path / "file", Entry(b"x", size=len(data)), data, size)
    assert content == data
    assert sum(reported) == len(data)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_sparse(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces need not end where extents do; empty extents and a hole at the end are nothing special."""
    monkeypatch.setattr(filling, "EAGER", 10)
    extents = [(0, 5), (100, 0), (100, 1500), (3000, 1)]
    entry = Entry(b"x", size=9000, extents=extents)
    data = os.urandom(1506)
    content, _ = filled(tmp_path / "file", entry, data, size)
    wanted = bytearray(9000)
    wanted[:5], wanted[100:1600], wanted[3000:3001] = data[:5], data[5:1505], data[1505:]
    assert content == wanted


def test_empty(tmp_path: Path) -> None:
    assert filled(tmp_path / "file", Entry(b"x"), b"", 10) == (b"", [])
    assert filled(tmp_path / "hole", Entry(b"x", size=5, extents=[]), b"", 10) == (bytes(5), [])
