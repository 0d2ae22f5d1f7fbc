r"""The mount-string parser: ``-o`` texts to the frozen records.

The syntax is the kernel's: commas separate options, colons separate lower directories, and a backslash
escapes ``,``, ``:`` and itself. Empty options are ignored, since callers paste strings together. `table` says
what an option means. Nothing here reads the disk, except to resolve symbolic links in paths.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from overlayfs_py.errors import ConfigError, for_people
from overlayfs_py.options.records import IdRange, MountOptions, Options, ServiceOptions, UnionOptions
from overlayfs_py.options.table import ROWS, SILENT_PREFIXES, Kind, Row

Pair = tuple[str, str | None]

_COMMA = re.compile(r"((?:[^\\,]+|\\.|\\$)*)(?:,|$)", re.DOTALL)
_COLON = re.compile(r"((?:[^\\:]+|\\.|\\$)*)(?:::?|$)", re.DOTALL)
_LARGEST_ID = 2**32 - 2


def split_options(text: str) -> list[Pair]:
    """Split one ``-o`` text into (name, value) pairs, escapes kept; the value is None where there is no
    ``=``.
    """
    pairs: list[Pair] = []
    for piece in _split(_COMMA, text):
        name, equals, value = piece.partition("=")
        if piece:
            pairs.append((name, value if equals else None))
    return pairs


def escape(path: str) -> str:
    """Return `path` as a value for a mount string."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def unescape(value: str) -> str:
    """Undo `escape`; a backslash before any other character stays."""
    return re.sub(r"\\([\\:,])", r"\1", value)


def parse_options(
    pairs: Iterable[Pair],
    *,
    mountpoint: bytes,
    source: str | None = None,
    cwd: bytes = b"/",
    service: Mapping[str, object] | None = None,
) -> Options:
    """Return the records for these options; a later option overrides an earlier one.

    Raises ConfigError, which names the wrong option. Relative paths start at `cwd`; their symbolic links are
    resolved here, once. `source` is the first word of mount(8)'s command line; `service` holds fields of
    ServiceOptions that come from the command line or the environment.
    """
    reader = _Reader(cwd)
    for name, value in pairs:
        reader.read(name, value)
    return reader.finish(
        mountpoint=absolute_mountpoint(cwd, mountpoint),
        source=source,
        service=service or {},
    )


def read_options(pairs: Iterable[Pair], *, cwd: bytes) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the values in these options, by ``record.field``, and the warnings; a partial set is no
    error.
    """
    reader = _Reader(cwd)
    for name, value in pairs:
        reader.read(name, value)
    return reader.named()


def absolute_mountpoint(cwd: bytes, path: bytes) -> bytes:
    """Return `path` with all links resolved except the last name: resolving a dead mount there would hang."""
    head, tail = os.path.split(os.path.join(cwd, path).rstrip(b"/"))
    if tail in (b"", b".", b".."):
        return os.path.realpath(os.path.join(cwd, path))
    return os.path.join(os.path.realpath(head), tail)


class _Reader:
    """Collects the fields of the three records while options are read one after the other."""

    def __init__(self, cwd: bytes) -> None:
        self._cwd = cwd
        self._fields: dict[str, object] = {}
        self._lower: list[bytes] = []
        self._data_lower: list[bytes] = []
        self._warnings: list[str] = []

    def read(self, name: str, value: str | None) -> None:
        if name.startswith(SILENT_PREFIXES):
            return
        row = ROWS.get(name)
        if row is None:
            raise ConfigError(f"unknown option {_shown(name)}")
        _READERS[row.kind](self, row, value)

    def read_lowers(self, row: Row, value: str | None) -> None:
        regular, data = _split_lowers(_needed(row, value))
        self._lower = [self._directory(row, path) for path in regular]
        self._data_lower = [self._directory(row, path) for path in data]

    def read_directory(self, row: Row, value: str | None) -> None:
        path = self._directory(row, _needed(row, value))
        if row.target == "union.lower":
            if self._data_lower:
                raise ConfigError("lowerdir+ after a data-only lower directory: put it before that one")
            self._lower.append(path)
        elif row.target == "union.data_lower":
            self._data_lower.append(path)
        else:
            self._fields[row.target] = path

    def read_flag(self, row: Row, value: str | None) -> None:
        if value is not None:
            raise ConfigError(f"option {row.name} takes no value (got {_shown(value)})")
        self._fields[row.target] = row.values[""]

    def read_word(self, row: Row, value: str | None) -> None:
        word = unescape(_needed(row, value))
        if word not in row.values:
            raise ConfigError(f"option {row.name}={_shown(word)}: {_expected(row)}")
        if row.target:
            self._fields[row.target] = row.values[word]

    def read_integer(self, row: Row, value: str | None) -> None:
        self._fields[row.target] = _integer(row.name, _needed(row, value))

    def read_seconds(self, row: Row, value: str | None) -> None:
        text = _needed(row, value)
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 2**31:
            raise ConfigError(f"option {row.name}={_shown(text)}: expected a number of seconds")
        self._fields[row.target] = seconds

    def read_text(self, row: Row, value: str | None) -> None:
        self._fields[row.target] = unescape(_needed(row, value))

    def read_id_map(self, row: Row, value: str | None) -> None:
        self._fields[row.target] = _id_map(row.name, _needed(row, value))

    def pass_over(self, row: Row, value: str | None) -> None:
        pass

    def warn(self, row: Row, value: str | None) -> None:
        self._warnings.append(f"option {row.name} has no effect: {row.meaning}")

    def refuse(self, row: Row, value: str | None) -> None:
        raise ConfigError(f"option {row.name} is not available: {row.meaning}")

    def named(self) -> tuple[dict[str, object], tuple[str, ...]]:
        """Return what was read so far."""
        layers = {"union.lower": tuple(self._lower), "union.data_lower": tuple(self._data_lower)}
        self._expand_squash()
        return {name: paths for name, paths in layers.items() if paths} | self._fields, tuple(self._warnings)

    def finish(self, *, mountpoint: bytes, source: str | None, service: Mapping[str, object]) -> Options:
        fields, upper = self._fields, self._fields.get("union.upper")
        if fields.pop("remount", False):
            raise ConfigError(
                "option remount applies to an existing mount: use it on the command line or with mount(8)"
            )
        self._check_layers()
        if fields.get("service.data") == "writeback" and fields.get("service.timeout") == 0:
            raise ConfigError(
                "timeout=0 (layers that change underneath) cannot be combined with data=writeback"
            )
        self._expand_squash()
        if upper is None:
            fields["mount.read_only"] = True
            if fields.pop("union.work", None) is not None:
                self._warnings.append("option workdir has no effect without upperdir")
        if source is not None:
            fields.setdefault("mount.fsname", source)
        fields.update({f"service.{name}": value for name, value in service.items() if value})
        if fields.get("service.debug"):
            fields["service.foreground"] = True
        return Options(
            union=UnionOptions(
                lower=tuple(self._lower), data_lower=tuple(self._data_lower), **self._record("union")
            ),
            mount=MountOptions(mountpoint=mountpoint, **self._record("mount")),
            service=ServiceOptions(**self._record("service")),
            warnings=tuple(self._warnings),
        )

    def _expand_squash(self) -> None:
        if self._fields.pop("squash_to_root", False):
            self._fields.setdefault("union.squash_uid", 0)
            self._fields.setdefault("union.squash_gid", 0)

    def _check_layers(self) -> None:
        if not self._lower:
            what = (
                "a data-only lower directory needs a lower directory above it: add lowerdir="
                if self._data_lower
                else ""
            )
            raise ConfigError(what or "no lower directory: add lowerdir=DIR[:DIR...]")
        if "union.upper" in self._fields and "union.work" not in self._fields:
            raise ConfigError("upperdir needs workdir=DIR, an empty directory on the same file system")

    def _record(self, record: str) -> dict[str, Any]:
        prefix = record + "."
        return {name.removeprefix(prefix): v for name, v in self._fields.items() if name.startswith(prefix)}

    def _directory(self, row: Row, value: str) -> bytes:
        path = unescape(value)
        if not path:
            raise ConfigError(f"option {row.name}: an empty directory name")
        return os.path.realpath(os.path.join(self._cwd, os.fsencode(path)))


_READERS: dict[Kind, Callable[[_Reader, Row, str | None], None]] = {
    Kind.LOWERS: _Reader.read_lowers,
    Kind.DIRECTORY: _Reader.read_directory,
    Kind.FLAG: _Reader.read_flag,
    Kind.ONE_OF: _Reader.read_word,
    Kind.INTEGER: _Reader.read_integer,
    Kind.SECONDS: _Reader.read_seconds,
    Kind.TEXT: _Reader.read_text,
    Kind.ID_MAP: _Reader.read_id_map,
    Kind.SILENT: _Reader.pass_over,
    Kind.WARNED: _Reader.warn,
    Kind.REFUSED: _Reader.refuse,
}


def _split(separator: re.Pattern[str], text: str) -> list[str]:
    """Split at unescaped separators; escapes are kept."""
    pieces: list[str] = []
    at = 0
    while at <= len(text):
        match = separator.match(text, at)
        assert match is not None  # matches the empty string
        pieces.append(match[1])
        if match.end() == match.end(1):
            break
        at = match.end()
    return pieces


def _split_lowers(value: str) -> tuple[list[str], list[str]]:
    """Split a ``lowerdir=`` value into lower directories and, after the first ``::``, data-only ones."""
    regular: list[str] = []
    data: list[str] = []
    at, group = 0, regular
    while True:
        match = _COLON.match(value, at)
        assert match is not None
        group.append(match[1])
        colons = value[match.end(1) : match.end()]
        if not colons:
            return regular, data
        if colons == "::":
            group = data
        elif group is data:
            raise ConfigError("option lowerdir: separate data-only lower directories with ::")
        at = match.end()


def _needed(row: Row, value: str | None) -> str:
    if not value:
        raise ConfigError(f"option {row.name} needs a value")
    return value


def _expected(row: Row) -> str:
    words = list(row.values)
    return f"expected {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else row.meaning


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) > _LARGEST_ID:
        raise ConfigError(f"option {name}={_shown(text)}: expected a whole number up to {_LARGEST_ID}")
    return int(text)


def _id_map(name: str, text: str) -> tuple[IdRange, ...]:
    """Parse triples LAYER:MOUNT:SIZE (first id on disk, first id in the mount, count), as fuse-overlayfs
    does.

    containers/storage puts a colon in front.
    """
    words = re.split(r"[:,]", unescape(text).removeprefix(":"))
    if len(words) % 3:
        raise ConfigError(f"option {name}={_shown(text)}: expected triples LAYER:MOUNT:SIZE")
    numbers = [_integer(name, word) for word in words]
    ranges = tuple(
        IdRange(in_layer=layer, in_mount=mount, size=size)
        for layer, mount, size in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )
    for side in ("in_mount", "in_layer"):
        end = -1
        for start, size in sorted((getattr(r, side), r.size) for r in ranges):
            if start <= end or size < 1:
                raise ConfigError(f"option {name}={_shown(text)}: its ranges are empty or overlap")
            end = start + size - 1
    return ranges


def _shown(text: str) -> str:
    return for_people(text) or "''"
