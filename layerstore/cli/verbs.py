"""The table of verbs: the short ones, and docker's groups, which have the same verbs under other names.

Commands, help, manual pages and completion are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Verb -> the module of this package with its `..._command`; in the order of the help text.
VERBS = {
    "import": "images",
    "create": "workspaces",
    "mount": "workspaces",
    "umount": "workspaces",
    "diff": "workspaces",
    "commit": "workspaces",
    "images": "images",
    "history": "images",
    "inspect": "images",
    "tag": "images",
    "rmi": "images",
    "save": "archives",
    "load": "archives",
    "export": "archives",
    "ps": "workspaces",
    "rm": "workspaces",
    "rename": "workspaces",
    "cp": "copying",
    "prune": "upkeep",
    "df": "upkeep",
    "fsck": "upkeep",
    "pull": "registry",
    "push": "registry",
    "search": "searching",
    "login": "registry",
    "logout": "registry",
    "info": "about",
    "version": "about",
}
ALIASES = {"ls": "images"}


@dataclass(frozen=True, slots=True)
class GroupedVerb:
    """A verb in a group. `preset` fixes parameters, which are then no options; `says` replaces the help."""

    verb: str
    aliases: tuple[str, ...] = ()
    preset: Mapping[str, object] = field(default_factory=dict)
    says: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group and its verbs, by their names in it."""

    says: str
    spellings: Mapping[str, GroupedVerb]


def _same(*verbs: str) -> dict[str, GroupedVerb]:
    return {verb: GroupedVerb(verb) for verb in verbs}


_CONTAINERS = """Remove all workspaces that are not mounted, with everything written in them.

Asks first, unless -f is given."""
_ALL = """Remove workspaces that are not mounted, nameless images and whatever in the store nothing needs.

Asks first, unless -f is given."""

GROUPS = {
    "image": Group(
        "Manage images.",
        {
            **_same("history", "import", "load", "pull", "push", "save", "tag"),
            "inspect": GroupedVerb("inspect", preset={"kind": "image", "size": False}),
            "ls": GroupedVerb("images", aliases=("list",)),
            "prune": GroupedVerb("prune", preset={"workspaces": False}),
            "rm": GroupedVerb("rmi", aliases=("remove",)),
        },
    ),
    "container": Group(
        "Manage workspaces, docker's containers.",
        {
            **_same("commit", "cp", "create", "diff", "export", "mount", "rename", "umount"),
            "inspect": GroupedVerb("inspect", preset={"kind": "workspace", "platform": None}),
            "ls": GroupedVerb("ps", aliases=("list", "ps")),
            "prune": GroupedVerb(
                "prune",
                preset={"workspaces": True, "images": False, "all_images": False},
                says=_CONTAINERS,
            ),
            "rm": GroupedVerb("rm", aliases=("remove",)),
        },
    ),
    "system": Group(
        "Manage the store.",
        {
            **_same("df", "fsck", "info"),
            "prune": GroupedVerb("prune", preset={"workspaces": True}, says=_ALL),
        },
    ),
}


def names(spelling: GroupedVerb) -> list[str]:
    """Return every way to write a verb with the same meaning: in groups, then short, as docker does."""
    found = [
        f"{group} {name}"
        for group, one in GROUPS.items()
        for verb, other in one.spellings.items()
        if (other.verb, other.preset) == (spelling.verb, spelling.preset)
        for name in (verb, *other.aliases)
    ]
    short = [spelling.verb, *(name for name, verb in ALIASES.items() if verb == spelling.verb)]
    return found if spelling.preset else [*found, *short]
