"""``-o remount``: what is asked of a mount that lives, read by the rows of the first mount's options.

Only what the kernel keeps with the mount can change: ``ro`` and the flags. Anything else must be what the
mount has already, as mount(8) repeats what fstab says.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from overlayfs_py.errors import ConfigError
from overlayfs_py.options.parse import Pair, read_options
from overlayfs_py.options.records import Options
from overlayfs_py.options.table import ROWS

NAME = "remount"
# A word of mount(8)'s that a first mount passes over, since access times are kept so anyway.
RELATIME = "relatime"
_FLAGS = frozenset(f"mount.{name}" for name in ("read_only", "nosuid", "nodev", "noexec", "noatime"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RemountOptions:
    """One remount, parsed.

    `flags`: those of MountOptions that were named, and ``relatime``; `kept`: ``record.field`` and its value
    for every other option that was named.
    """

    flags: Mapping[str, bool]
    kept: Mapping[str, object]
    warnings: tuple[str, ...] = ()


def is_remount(pairs: Iterable[Pair]) -> bool:
    """Whether these options are of a mount that lives."""
    return any(name == NAME for name, _ in pairs)


def parse_remount(pairs: Sequence[Pair], *, cwd: bytes, shown: Collection[str]) -> RemountOptions:
    """What is asked; ConfigError names the option that is wrong.

    `shown`: the words that the mount table has for the mount. mount(8) hands them on, also those that no
    first mount takes (user_id=0): they are what the mount has.
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
    """ConfigError names an option that is asked for and not the mount's; values as `plain` gives them."""
    named = {row.target: row.name for row in reversed(ROWS.values()) if "." in row.target}
    for name, value in asked.items():
        if name not in named:
            raise ConfigError(f"there is no option {name}")
        record, _, field = name.partition(".")
        has = plain(getattr(getattr(options, record), field))
        if value != has:
            raise ConfigError(f"option {named[name]} is {_shown(has)} and cannot change: unmount it first")


def plain(value: object) -> object:
    """An option's value as JSON has it."""
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
