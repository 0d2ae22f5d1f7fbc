"""``-o remount``: parse what an existing mount should become, with the same rows as for a first mount.

Only what the kernel keeps with the mount can change: ``ro`` and the other flags. Any other option must have
the value that the mount has, since mount(8) repeats all options of fstab.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from overlayfs_py.errors import ConfigError
from overlayfs_py.options.parse import Pair, read_options
from overlayfs_py.options.records import Options
from overlayfs_py.options.table import ROWS

NAME = "remount"
# A word of mount(8) that a first mount ignores, since access times work that way anyway.
RELATIME = "relatime"
_FLAGS = frozenset(f"mount.{name}" for name in ("read_only", "nosuid", "nodev", "noexec", "noatime"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RemountOptions:
    """One remount, parsed.

    `flags`: the named flags of MountOptions, and ``relatime``; `kept`: ``record.field`` and value of every
    other named option.
    """

    flags: Mapping[str, bool]
    kept: Mapping[str, object]
    warnings: tuple[str, ...] = ()


def is_remount(pairs: Iterable[Pair]) -> bool:
    """Whether these options apply to an existing mount."""
    return any(name == NAME for name, _ in pairs)


def parse_remount(pairs: Sequence[Pair], *, cwd: bytes, shown: Collection[str]) -> RemountOptions:
    """Parse a remount; ConfigError names the wrong option.

    `shown`: the mount's words in the mount table. mount(8) passes them on, also those that are no option of a
    first mount (user_id=0): the mount has them already.
    """
    names = [name for name, _ in pairs]
    asked = [pair for pair in pairs if pair[0] != NAME and (_is_flag(pair[0]) or _word(pair) not in shown)]
    fields, warnings = read_options(asked, cwd=cwd)
    flags = {field.removeprefix("mount."): bool(value) for field, value in fields.items() if field in _FLAGS}
    if RELATIME in names:
        flags[RELATIME] = True
    kept = {field: value for field, value in fields.items() if field not in _FLAGS}
    return RemountOptions(flags=flags, kept=kept, warnings=warnings)


def check_kept(asked: Mapping[str, object], options: Options) -> None:
    """Raise ConfigError for an option whose value is not the mount's; values in the form of `plain`."""
    named = {row.target: row.name for row in reversed(ROWS.values()) if "." in row.target}
    for name, value in asked.items():
        if name not in named:
            raise ConfigError(f"unknown option {name}")
        record, _, field = name.partition(".")
        has = plain(getattr(getattr(options, record), field))
        if value != has:
            raise ConfigError(f"option {named[name]} is {_shown(has)} and cannot change: unmount it first")


def plain(value: object) -> object:
    """Return an option's value in JSON form."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ":".join(map(_shown, value)) or "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "not given" if value is None else str(value)


def _is_flag(name: str) -> bool:
    return name in ROWS and ROWS[name].target in _FLAGS


def _word(pair: Pair) -> str:
    name, value = pair
    return name if value is None else f"{name}={value}"
