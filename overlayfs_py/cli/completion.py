"""Shell completion for both commands, from their parsers, the option table and the mount table.

The shell calls the command itself, as with click programs: with ``_OVERLAYFS_PY_COMPLETE=bash_complete`` and
the line so far in variables that click reads.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from overlayfs_py.cli.completion_scripts import SCRIPTS
from overlayfs_py.options.parse import escape, split_options, unescape
from overlayfs_py.options.table import ROWS, Kind
from overlayfs_py.syscalls.mount import OWN_TYPE, mount_table

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_USELESS = (Kind.SILENT, Kind.WARNED, Kind.REFUSED)
# Characters besides blanks at which bash splits words; it passes each as a word of its own.
_BREAKS = ("=", ":")

Item = CompletionItem[str]


def variable(program: str) -> str:
    """Return the environment variable by which a shell asks `program` for completions."""
    return f"_{program.upper().replace('-', '_')}_COMPLETE"


def script(program: str, shell: str) -> str:
    """Return the script that makes `shell` ask `program`."""
    text = SCRIPTS[shell].replace("@PROGRAM@", program).replace("@ASK@", variable(program))
    return text.replace("@NAME@", program.replace("-", "_"))


def answer(parser: argparse.ArgumentParser, instruction: str) -> int:
    """Answer a shell (`bash_complete`, `bash_source`) on stdout; return the exit status."""
    shell, _, what = instruction.partition("_")
    if shell not in _SHELLS or what not in ("complete", "source"):
        return 1
    text = script(parser.prog, shell) if what == "source" else "".join(_lines(parser, shell))
    sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
    return 0


def _lines(parser: argparse.ArgumentParser, shell: str) -> Iterator[str]:
    """Yield ``TYPE,WORD``, a tab and the help text, one line a candidate."""
    asking = _SHELLS[shell](click.Command(None), {}, parser.prog, variable(parser.prog))
    args, incomplete = asking.get_completion_args()
    cut = 0
    if shell == "bash":
        args, incomplete, cut = _joined(args, incomplete)
    for item in candidates(parser, args, incomplete):
        yield f"{item.type},{item.value[cut:]}\t{item.help or ''}\n"


def _joined(args: Sequence[str], incomplete: str) -> tuple[list[str], str, int]:
    """Join the pieces of bash; also return how much of the last word it will not replace."""
    words: list[str] = []
    glue = False
    for piece in [*args, incomplete]:
        if words and (glue or piece in _BREAKS):
            words[-1] += piece
        else:
            words.append(piece)
        glue = piece in _BREAKS
    last = words.pop()
    return words, last, len(last) - (0 if incomplete in _BREAKS else len(incomplete))


def candidates(parser: argparse.ArgumentParser, args: Sequence[str], incomplete: str) -> list[Item]:
    """Return the candidates for `incomplete` after `args`."""
    positionals = [action for action in parser._actions if not action.option_strings]
    waiting: argparse.Action | None = None  # an option whose value comes next
    for at, word in enumerate(args):
        if waiting is not None:
            waiting = None
        elif word == "--":
            return [Item("", type="file")]
        elif word in parser._option_string_actions:
            action = parser._option_string_actions[word]
            waiting = action if action.nargs != 0 else None
        elif positionals and not word.startswith("-"):
            action = positionals[0]
            if isinstance(action, argparse._SubParsersAction):
                below = action.choices.get(word)
                return candidates(below, args[at + 1 :], incomplete) if below is not None else []
            if action.nargs != "*":
                positionals.pop(0)
    if waiting is not None:
        return list(_values(waiting, incomplete))
    if incomplete.startswith("-"):
        return list(_options(parser, incomplete))
    return list(_values(positionals[0], incomplete)) if positionals else []


def _options(parser: argparse.ArgumentParser, incomplete: str) -> Iterator[Item]:
    for name, action in parser._option_string_actions.items():
        if name.startswith(incomplete) and action.help != argparse.SUPPRESS:
            yield Item(name, help=action.help)


def _values(action: argparse.Action, incomplete: str) -> Iterator[Item]:
    if isinstance(action, argparse._SubParsersAction):
        texts = {choice.dest: choice.help for choice in action._choices_actions}
        for verb, text in texts.items():
            if verb.startswith(incomplete):
                yield Item(verb, help=text)
    elif action.dest == "options":
        yield from mount_options(incomplete)
    elif action.dest == "mountpoint":
        yield from _live_mounts(incomplete)
    elif action.dest in ("words", "run_dir"):
        yield Item("", type="dir")
    elif action.dest == "config":
        yield Item("", type="file")


def mount_options(incomplete: str) -> Iterator[Item]:
    """Yield continuations of an option text: option names, or words or directories for a value."""
    *before, (name, value) = split_options(incomplete + "x")  # never empty: the last one is incomplete
    last = name[:-1] if value is None else f"{name}={value[:-1]}"
    start = incomplete[: len(incomplete) - len(last)]
    if value is not None:
        for text in _option_values(name, value[:-1]):
            yield Item(f"{start}{name}={text}", type="part")
        return
    for row in ROWS.values():
        given = row.name in dict(before) and row.name != "lowerdir+"
        if row.name.startswith(last) and row.kind not in _USELESS and row.meaning and not given:
            bare = row.kind is Kind.FLAG
            yield Item(f"{start}{row.name}{'' if bare else '='}", type="part", help=row.meaning)


def _option_values(name: str, value: str) -> Iterator[str]:
    row = ROWS.get(name)
    if row is None:
        return
    if row.kind is Kind.ONE_OF:
        yield from (word for word in row.values if word.startswith(value))
    elif row.kind in (Kind.DIRECTORY, Kind.LOWERS):
        head, colon, path = value.rpartition(":") if row.kind is Kind.LOWERS else ("", "", value)
        yield from (f"{head}{colon}{escape(found)}/" for found in _directories(unescape(path)))


def _directories(path: str) -> Iterator[str]:
    head, tail = os.path.split(path)
    try:
        with os.scandir(head or ".") as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(tail) and entry.is_dir())
    except OSError:
        return
    yield from (os.path.join(head, name) for name in names if tail or not name.startswith("."))


def _live_mounts(incomplete: str) -> Iterator[Item]:
    """Yield the mounts of the mount table; no daemon is queried."""
    for record in mount_table():
        path = os.fsdecode(record.mountpoint)
        if record.fstype == OWN_TYPE and path.startswith(incomplete):
            yield Item(path)
    if not incomplete.startswith("/"):
        yield Item("", type="dir")
