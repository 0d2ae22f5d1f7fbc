"""What a layer may cost before it is refused: one frozen record, with defaults that honest layers never
meet.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@dataclass(frozen=True, slots=True)
class Limits:
    """Each limit raises LimitExceeded; none is a hint.

    The ratio counts only after `ratio_floor` bytes, as a few kilobytes of zeros may shrink a lot; gzip cannot
    do better than 1032:1, so the default only meets zstd, xz and bzip2 bombs.
    """

    max_bytes: int = 1 * TIB  # of the uncompressed tar
    max_ratio: int = 2000  # uncompressed : compressed
    ratio_floor: int = 256 * MIB
    max_entries: int = 20_000_000
    max_name: int = 4095  # bytes of a path or a link target (PATH_MAX without its NUL)
    max_pax: int = 8 * MIB  # bytes of one PAX header or GNU long name
    max_file_size: int = 16 * TIB  # declared, also by a sparse file that stores nothing
    max_sparse_extents: int = 1_000_000
    max_window: int = 128 * MIB  # memory a zstd or xz stream may ask for


DEFAULT_LIMITS = Limits()
