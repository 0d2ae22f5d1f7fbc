"""How much an image may use before it is refused: one frozen record, with defaults above any honest image.

`current()` returns the limits of this process: the defaults, changed by ``$LAYERSTORE_LIMITS``, or those of
`set_current` (the command line's ``--limit``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass

from layerstore import environment
from layerstore.errors import LayerstoreError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_NUMBER = re.compile(r"([0-9]{1,18})([KMGT]?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """Exceeding a limit raises LimitExceeded; a name that is too long raises InvalidLayer.

    The ratio counts only after `ratio_floor` bytes, as a few kilobytes of zeros may shrink a lot; gzip cannot
    do better than 1032:1, so the default only meets zstd, xz and bzip2 bombs.
    """

    max_bytes: int = 1 * TIB  # of the uncompressed tar
    max_ratio: int = 2000  # uncompressed : compressed
    ratio_floor: int = 256 * MIB
    max_entries: int = 20_000_000
    max_name: int = 4095  # bytes of a path or a link target (PATH_MAX without its NUL)
    max_pax: int = 8 * MIB  # bytes of one PAX header or GNU long name
    max_global_pax: int = 64 * KIB  # bytes of all global PAX records, which apply to every later entry
    max_file_size: int = 16 * TIB  # declared, also by a sparse file that stores nothing
    max_sparse_extents: int = 1_000_000
    max_window: int = 128 * MIB  # memory that a zstd or xz stream may need
    max_document: int = 4 * MIB  # a manifest, a configuration: what registries accept
    max_index: int = 32 * MIB  # index.json of a layout with a great many images
    max_depth: int = 64  # of nested arrays and objects in JSON
    max_layers: int = 4096  # of one image
    max_members: int = 100_000  # files in an image archive


DEFAULT_LIMITS = Limits()
_FIELDS = dataclasses.fields(Limits)
_current: list[Limits] = []


def current() -> Limits:
    """Return the limits of this process."""
    if not _current:
        _current.append(parse(environment.limits().split(",")))
    return _current[0]


def set_current(limits: Limits) -> None:
    """Replace the limits, for all threads of this process."""
    _current[:] = [limits]


def names() -> dict[str, str]:
    """Return the limits with the names and the default values that users write."""
    return {_name(field.name): _shown(getattr(DEFAULT_LIMITS, field.name)) for field in _FIELDS}


def parse(words: Iterable[str], base: Limits = DEFAULT_LIMITS) -> Limits:
    """Return `base`, changed by words like ``entries=50M`` (K, M, G, T are powers of 1024); empty words are
    ignored.

    Raises LayerstoreError for an unknown limit or a bad number.
    """
    fields = {_name(field.name): field.name for field in _FIELDS}
    changes = {}
    for word in filter(None, map(str.strip, words)):
        name, _, text = word.partition("=")
        number = _NUMBER.fullmatch(text)
        if name not in fields:
            raise LayerstoreError(f"unknown limit {name!r}; the limits are {', '.join(fields)}")
        if number is None:
            raise LayerstoreError(f"invalid limit {word!r}: write NAME=N, with N such as 500, 64K or 2G")
        changes[fields[name]] = int(number[1]) * _UNITS[number[2]]
    return dataclasses.replace(base, **changes)


def _name(field: str) -> str:
    return field.removeprefix("max_").replace("_", "-")


def _shown(value: int) -> str:
    for unit in ("T", "G", "M", "K"):
        if value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return str(value)
