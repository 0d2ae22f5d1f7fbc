r"""The mount-string parser: ``-o`` texts to the frozen records.

The syntax is the kernel's: commas separate options, colons separate lower directories, and a
backslash takes the meaning from ``,``, ``:`` and itself. Empty options are passed over, as callers
paste strings together. What an option means is in `table`; nothing here looks at the disk but the
resolving of paths.
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
    """The options of one ``-o`` text as (name, value), escapes kept; value None where there is no ``=``."""
    pairs: list[Pair] = []
    for piece in _split(_COMMA, text):
        name, equals, value = piece.partition("=")
        if piece:
            pairs.append((name, value if equals else None))
    return pairs


def escape(path: str) -> str:
    """`path` as a value in a mount string."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def unescape(value: str) -> str:
    """The text that an escaped value stands for; a backslash before anything else stays."""
    return re.sub(r"\\([\\:,])", r"\1", value)


def parse_options(
    pairs: Iterable[Pair],
    *,
    mountpoint: bytes,
    source: str | None = None,
    cwd: bytes = b"/",
    service: Mapping[str, object] | None = None,
) -> Options:
    """The records for these options; later ones win. ConfigError names the option that is wrong.

    Relative paths start at `cwd`; symbolic links in them are resolved here, once. `source` is the
    mount's first word on mount(8)'s command lines; `service` holds fields of ServiceOptions that
    come from the command line or the environment.
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
    """The values that these options name, by ``record.field``, and the warnings; nothing need be complete."""
    reader = _Reader(cwd)
    for name, value in pairs:
        reader.read(name, value)
    return reader.named()


def absolute_mountpoint(cwd: bytes, path: bytes) -> bytes:
    """`path` with links resolved but for the last name: a dead mount there must not be asked."""
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
                raise ConfigError("lowerdir+ comes after a data-only lower directory: name it before")
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
        raise ConfigError(f"option {row.name} cannot be used: {row.meaning}")

    def named(self) -> tuple[dict[str, object], tuple[str, ...]]:
        """What was read, as it stands."""
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
            raise ConfigError("timeout=0, for layers that change underneath, excludes data=writeback")
        self._expand_squash()
        if upper is None:
            fields["mount.read_only"] = True
            if fields.pop("union.work", None) is not None:
                self._warnings.append("option workdir has no effect: there is no upperdir")
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
            what = "a data-only lower directory needs a lower directory above it" if self._data_lower else ""
            raise ConfigError(what or "no lower directory: give lowerdir=DIR[:DIR...]")
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
    """The pieces between unescaped separators, escapes kept."""
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
    """The lower directories of a ``lowerdir=`` value and the data-only ones after the first ``::``."""
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
            raise ConfigError("option lowerdir: data-only lower directories are separated by ::")
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
    """Triples LAYER:MOUNT:SIZE, as fuse-overlayfs reads and containers/storage writes them: the first id on
    disk, the id it has in the mount, how many. containers/storage puts a colon in front.
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
