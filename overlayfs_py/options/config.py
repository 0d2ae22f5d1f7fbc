"""Read /etc/overlayfs-py/NAME.toml: one mount, with the mount options as keys.

Paths need no escapes; ``lowerdir`` may be a list; on/off options and flags may be true or false.
"""

import os
import tomllib
from pathlib import Path

from overlayfs_py.errors import ConfigError
from overlayfs_py.options.parse import Pair, escape
from overlayfs_py.options.table import ROWS, Kind

_PATHS = (Kind.LOWERS, Kind.DIRECTORY)


def read_config(path: Path) -> tuple[bytes, list[Pair]]:
    """Return the mount point and the options of a configuration file; ConfigError names the file and
    the key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    mountpoint = table.pop("mountpoint", None)
    if not isinstance(mountpoint, str) or not os.path.isabs(mountpoint):
        raise ConfigError(f'{path}: mountpoint = "/an/absolute/path" is missing')
    pairs: list[Pair] = []
    for name, value in table.items():
        try:
            pairs += _pairs(name, value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    return os.fsencode(mountpoint), pairs


def _pairs(name: str, value: object) -> list[Pair]:
    row = ROWS.get(name)
    if row is None:
        raise ConfigError(f"unknown option {name}")
    if isinstance(value, bool):
        if row.kind is Kind.FLAG:
            return [(name, None)] if value else []
        return [(name, "on" if value else "off")]
    if isinstance(value, int | float):
        return [(name, str(value))]
    items = value if isinstance(value, list) else [value]
    words = [item for item in items if isinstance(item, str)]
    if len(words) < len(items):
        raise ConfigError(f"option {name}: expected text, a number, true or false")
    if row.kind is Kind.LOWERS:
        if isinstance(value, str):  # several in one value, as in a mount string
            return [(name, value)]
        return [("lowerdir+", escape(word)) for word in words]
    return [(name, escape(word) if row.kind in _PATHS else word) for word in words]
