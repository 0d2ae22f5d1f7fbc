"""The group of verbs. Imports each verb when it is used, so that every verb starts fast."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import cast

import click

from layerstore.cli.remarks import complain
from layerstore.cli.spelling import plain
from layerstore.cli.verbs import ALIASES, GROUPS, VERBS, GroupedVerb, names
from layerstore.errors import LayerstoreError, explain


@dataclass(frozen=True, slots=True)
class StoreOption:
    """The store that ``--root`` names; None for the default."""

    path: str | None


class Verb(click.Command):
    """A verb under one of its names; accepts options as docker's users write them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            words = plain(self.get_params(ctx), args)
        except click.UsageError as error:
            error.ctx = ctx
            raise
        return super().parse_args(ctx, words)


class _Verbs(click.Group):
    """Finds its commands when they are used. Like docker, shows help for ``help`` and without a verb."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args or ctx.resilient_parsing else ["--help"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] == "help" and not ctx.resilient_parsing:
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
            args = [*args[1:], "--help"]
        return super().resolve_command(ctx, args)


class VerbGroup(_Verbs):
    """All verbs and groups of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*GROUPS, *VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in GROUPS:
            return _DockerGroup(cmd_name)
        verb = ALIASES.get(cmd_name, cmd_name)
        return _spelled(cmd_name, GroupedVerb(verb)) if verb in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in (("Management Commands", GROUPS), ("Commands", VERBS)):
            commands = [(name, self.get_command(ctx, name)) for name in verbs]
            with formatter.section(title):
                formatter.write_dl([(name, summary(one)) for name, one in commands if one is not None])


class _DockerGroup(_Verbs):
    """One of docker's groups."""

    def __init__(self, name: str) -> None:
        self._group = GROUPS[name]
        self._named = {
            alias: verb
            for verb, spelling in self._group.spellings.items()
            for alias in (verb, *spelling.aliases)
        }
        verb = next(iter(self._group.spellings))
        super().__init__(name, help=self._group.says, epilog=examples(f"layerstore {name} {verb} --help"))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._group.spellings)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self._named.get(cmd_name)
        return None if verb is None else _spelled(f"{self.name} {cmd_name}", self._group.spellings[verb])


def _spelled(words: str, spelling: GroupedVerb) -> Verb:
    """Return a verb's command under the name `words`, which its examples use too."""
    verb = spelling.verb
    module = import_module(f"layerstore.cli.{VERBS[verb]}")
    own = cast(click.Command, getattr(module, f"{verb}_command"))
    also = [f"layerstore {name}" for name in names(spelling)]
    aliases = f"\b\nAliases:\n  {', '.join(also)}\n\n" if len(also) > 1 else ""
    command = Verb(
        words.split()[-1],
        callback=partial(own.callback, **spelling.preset) if own.callback else None,
        params=[one for one in own.params if one.name not in spelling.preset],
        help=spelling.says or own.help,
        epilog=aliases + re.sub(rf"\blayerstore {verb}\b", f"layerstore {words}", own.epilog or ""),
    )
    command.short_help = summary(command)
    return command


def summary(command: click.Command) -> str:
    """Return what a command does in a few words: the first part of its help's first sentence."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"[.;:](?:\s|$)", text, maxsplit=1)[0]


def examples(*lines: str) -> str:
    """Return an epilog of examples that click does not re-wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def for_each(names: Iterable[str], action: Callable[[str], None]) -> None:
    """Call `action` for each name, also after one has failed. Exits with status 1 if any failed."""
    failed = False
    for name in names:
        try:
            action(name)
        except (LayerstoreError, OSError) as error:
            complain(explain(error))
            failed = True
    if failed:
        raise click.exceptions.Exit(1)
