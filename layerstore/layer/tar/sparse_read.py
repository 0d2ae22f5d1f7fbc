"""Read sparse maps: old GNU, and PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files")."""

from __future__ import annotations

import re

from layerstore.errors import InvalidLayer, LimitExceeded
from layerstore.layer.tar import pax
from layerstore.layer.tar.entry import BLOCK, Entry, Extent
from layerstore.layer.tar.fields import number
from layerstore.layer.tar.readahead import TarStream
from layerstore.limits import Limits

_DIGITS = re.compile(rb"[0-9]{1,20}")

Repeated = list[tuple[str, int]]


def read_old_gnu(header: bytes, entry: Entry, tar: TarStream, limits: Limits) -> None:
    """Read the map in the header and in the blocks that follow it, and the file's size, into `entry`."""
    extents = _pairs(header, 386, 4)
    more = header[482]
    entry.size = number(header[483:495])
    while more:
        block = tar.take(BLOCK)
        if len(block) < BLOCK:
            raise InvalidLayer("the tar ends in a sparse map", entry.name)
        extents += _pairs(block, 0, 21)
        more = block[504]
        _check_count(len(extents), limits)
    entry.extents = extents


def _pairs(block: bytes, at: int, count: int) -> list[Extent]:
    """Return up to `count` pairs of (offset, length); an empty pair ends them."""
    pairs = []
    for start in range(at, at + 24 * count, 24):
        if not block[start]:
            break
        pairs.append((number(block[start : start + 12]), number(block[start + 12 : start + 24])))
    return pairs


def read_pax(records: pax.Records, repeated: Repeated, entry: Entry, tar: TarStream, limits: Limits) -> None:
    """Read the map in PAX records (0.0, 0.1) or before the data (1.0) into `entry`, if there is one."""
    major = records.get("GNU.sparse.major", b"")
    if major not in (b"", b"0", b"1"):
        raise InvalidLayer(f"unknown sparse format {major!r}", entry.name)
    if major == b"1":
        entry.extents = _map_before_data(entry, tar, limits)
    elif "GNU.sparse.map" in records:
        entry.extents = _listed(records["GNU.sparse.map"], limits)
    elif repeated:
        entry.extents = _repeated(repeated, limits)
    elif "GNU.sparse.size" in records or "GNU.sparse.numblocks" in records:
        entry.extents = []
    else:
        return
    if "GNU.sparse.name" in records:
        entry.name = records["GNU.sparse.name"]
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        if key in records:
            entry.size = pax.integer(records[key], key)
            return
    raise InvalidLayer("a sparse file without its size", entry.name)


def _listed(value: bytes, limits: Limits) -> list[Extent]:
    numbers = value.split(b",") if value else []
    _check_count(len(numbers) // 2, limits)
    if len(numbers) % 2:
        raise InvalidLayer("a sparse map of an odd number of numbers")
    values = [pax.integer(text, "GNU.sparse.map") for text in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def _repeated(repeated: Repeated, limits: Limits) -> list[Extent]:
    _check_count(len(repeated) // 2, limits)
    keys = [key for key, _ in repeated]
    if keys != list(pax.REPEATED) * (len(keys) // 2):
        raise InvalidLayer("a sparse map whose offsets and lengths do not alternate")
    return [(repeated[i][1], repeated[i + 1][1]) for i in range(0, len(repeated), 2)]


def _map_before_data(entry: Entry, tar: TarStream, limits: Limits) -> list[Extent]:
    """Read decimal numbers, one per line, padded to whole blocks: how many pairs, then the pairs."""
    lines = _MapReader(entry, tar)
    count = lines.number()
    _check_count(count, limits)
    extents = [(lines.number(), lines.number()) for _ in range(count)]
    entry.stored -= lines.blocks * BLOCK
    return extents


class _MapReader:
    """Reads numbers from the blocks before the data; never reads past the bytes that the entry declares."""

    def __init__(self, entry: Entry, tar: TarStream) -> None:
        self.blocks = 0
        self._entry = entry
        self._tar = tar
        self._text = b""

    def number(self) -> int:
        end = self._text.find(b"\n")
        while end < 0:
            if len(self._text) > BLOCK or (self.blocks + 1) * BLOCK > self._entry.stored:
                raise InvalidLayer("a sparse map that does not end", self._entry.name)
            block = self._tar.take(BLOCK)
            self.blocks += 1
            if len(block) < BLOCK:
                raise InvalidLayer("the tar ends in a sparse map", self._entry.name)
            self._text += block
            end = self._text.find(b"\n")
        line, self._text = self._text[:end], self._text[end + 1 :]
        if not _DIGITS.fullmatch(line):
            raise InvalidLayer(f"a sparse map with {line[:40]!r} in it", self._entry.name)
        return int(line)


def check(entry: Entry, limits: Limits) -> None:
    """Refuse a map that goes backwards, leaves the file, or does not use the stored bytes exactly.

    Raises InvalidLayer, or LimitExceeded for too many extents.
    """
    if entry.extents is None:
        return
    _check_count(len(entry.extents), limits)
    at = stored = 0
    for offset, length in entry.extents:
        if offset < at or offset + length > entry.size or length < 0:
            raise InvalidLayer("a sparse map that overlaps or leaves the file", entry.name)
        at = offset + length
        stored += length
    if stored != entry.stored:
        raise InvalidLayer(f"a sparse map of {stored} bytes for {entry.stored} bytes of data", entry.name)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_sparse_extents:
        what = f"a sparse file of more than {limits.max_sparse_extents} extents"
        raise LimitExceeded(what, "sparse-extents")
