"""``python -m layerstore.cli.pages DIR``: write manual pages and shell completions from the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from layerstore.cli.group import summary
from layerstore.cli.program import layerstore
from overlayfs_py.share import COMPLETIONS, roff, write

_PROGRAM = "layerstore"


def completions() -> dict[str, str]:
    """Return each shell's completion file, by path; the program supplies the words."""
    made: dict[str, str] = {}
    for shell, place in COMPLETIONS.items():
        kind = get_completion_class(shell)
        if kind is not None:
            plain = kind(layerstore, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE")
            # Not `source()`: it runs the shell, which may not be installed here.
            made[place.format(_PROGRAM)] = plain.source_template % plain.source_vars()
    return made


def manual() -> dict[str, str]:
    """Return manual pages for the program and each group and verb, by path."""
    return {f"man/man1/{words.replace(' ', '-')}.1": text for words, text in _pages(layerstore, _PROGRAM)}


def _pages(command: click.Command, words: str) -> Iterator[tuple[str, str]]:
    """Yield a command's page and those of its verbs."""
    yield words, _page(command, words)
    if isinstance(command, click.Group):
        with click.Context(command, info_name=words) as context:
            for verb in command.list_commands(context):
                below = command.get_command(context, verb)
                if below is not None:
                    yield from _pages(below, f"{words} {verb}")


def _page(command: click.Command, words: str) -> str:
    with click.Context(command, info_name=words, help_option_names=["-h", "--help"]) as context:
        return "\n".join(_lines(command, context, words)) + "\n"


def _lines(command: click.Command, context: click.Context, words: str) -> Iterator[str]:
    title = words.replace(" ", "-")
    paragraphs = [part for part in (command.help or "").split("\n\n") if part.strip()]
    usage = " ".join(command.collect_usage_pieces(context))
    yield f'.TH "{title.upper()}" 1 "" "overlayfs-py" "User Commands"'
    yield from (".SH NAME", f"{roff(title)} \\- {roff(summary(command))}")
    yield from (".SH SYNOPSIS", f".B {roff(words)}", roff(usage), ".SH DESCRIPTION")
    for paragraph in paragraphs:
        yield from (".PP", roff(" ".join(paragraph.split())))
    yield from _options(command, context)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            said = "" if below is None else summary(below)
            yield from (".TP", f".BR {roff(title)}\\-{roff(verb)} (1)", roff(said))
    aliases = (command.epilog or "").partition("Aliases:\n")[2].partition("\n")[0]
    if aliases:
        yield from (".SH ALIASES", roff(aliases.strip()))
    examples = (command.epilog or "").partition("Examples:\n")[2]
    if examples:
        yield from (".SH EXAMPLES", ".nf", *(roff(line) for line in examples.split("\n")), ".fi")
    if isinstance(command, click.Group):
        return
    yield from (".SH SEE ALSO", f".BR {_PROGRAM} (1)")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from (".TP", f".B {roff(record[0])}", roff(record[1]))


if __name__ == "__main__":
    write(Path(sys.argv[1]), {**completions(), **manual()})
