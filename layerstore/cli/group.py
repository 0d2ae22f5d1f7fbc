"""The group of verbs: each is imported when it is used, so that every verb starts fast."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

import click

from layerstore.errors import LayerstoreError
from overlayfs_py.errors import say

# Verb -> module of this package that has it; the order is the order of the help text.
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
    "cp": "copying",
    "prune": "upkeep",
    "df": "upkeep",
    "fsck": "upkeep",
    "pull": "registry",
    "push": "registry",
    "login": "registry",
    "logout": "registry",
}
ALIASES = {"ls": "images"}


@dataclass(frozen=True, slots=True)
class Root:
    """The store the command line named, None for the default."""

    path: str | None


class VerbGroup(click.Group):
    """Finds a verb's command in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = ALIASES.get(cmd_name, cmd_name)
        if verb not in VERBS:
            return None
        module = import_module(f"layerstore.cli.{VERBS[verb]}")
        command = cast(click.Command, getattr(module, f"{verb}_command"))
        command.short_help = summary(command)
        return command


def summary(command: click.Command) -> str:
    """What a command does in a few words: the first part of its help's first sentence."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"[.;:](?:\s|$)", text, maxsplit=1)[0]


def examples(*lines: str) -> str:
    """An epilog of examples that click does not re-wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def note(line: str) -> None:
    """A remark of a verb, for the user's eyes."""
    say("layerstore", line)


def for_each(names: Iterable[str], action: Callable[[str], None]) -> None:
    """Do the same for several names; one that fails does not keep the others from it. Exit status 1 if any
    failed.
    """
    failed = False
    for name in names:
        try:
            action(name)
        except (LayerstoreError, OSError) as error:
            from layerstore.cli.program import complain, explain

            complain(explain(error) if isinstance(error, OSError) else str(error))
            failed = True
    if failed:
        raise click.exceptions.Exit(1)
