"""Options as docker's users write them: ``--no-trunc=true``, ``-qa=false``, ``-f='{{.Id}}'``.

Pure: words in, words out that say the same to click, which knows no values of flags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

_Piece = tuple[click.Option | None, list[str]]  # an option with its value, or a word that is none


def plain(parameters: Iterable[click.Parameter], words: Sequence[str]) -> list[str]:
    """A command's words as click takes them. BadOptionUsage for a flag's value that is no boolean."""
    options = [one for one in parameters if isinstance(one, click.Option)]
    named = {name: one for one in options for name in [*one.opts, *one.secondary_opts]}
    pieces: list[_Piece] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            pieces.append((None, [word, *left]))
            break
        if word.startswith("--"):
            _add_long(pieces, named, word, left)
        elif word.startswith("-") and word != "-":
            _add_short(pieces, named, word, left)
        else:
            pieces.append((None, [word]))
    return [word for _, said in pieces for word in said]


def _add_long(pieces: list[_Piece], named: dict[str, click.Option], word: str, left: list[str]) -> None:
    name, equals, value = word.partition("=")
    option = named.get(name)
    if option is not None and option.is_flag and equals:
        _switch(pieces, option, name, value)
    else:
        pieces.append((option, [word, *([] if equals else _value(option, left))]))


def _add_short(pieces: list[_Piece], named: dict[str, click.Option], word: str, left: list[str]) -> None:
    """A cluster, as Go's pflag takes one apart: its last letter may have a value."""
    cluster = word[1:]
    while cluster:
        name, rest = f"-{cluster[0]}", cluster[1:]
        option = named.get(name)
        if option is None:
            pieces.append((None, [f"-{cluster}"]))  # click says what is wrong with it
        elif len(rest) > 1 and rest.startswith("="):
            if option.is_flag:
                _switch(pieces, option, name, rest[1:])
            else:
                pieces.append((option, [name, rest[1:]]))
        elif option.is_flag:
            pieces.append((option, [name]))
            cluster = rest
            continue
        else:
            pieces.append((option, [name, *([rest] if rest else _value(option, left))]))
        return


def _value(option: click.Option | None, left: list[str]) -> Iterator[str]:
    """The next word, if it is the option's value: it is not looked at."""
    if option is not None and not option.is_flag and not option.count and left:
        yield left.pop(0)


def _switch(pieces: list[_Piece], option: click.Option, name: str, value: str) -> None:
    """A flag with a value: the flag, its opposite, or, where it has none, as if it was never given."""
    if value not in _TRUE | _FALSE:
        raise click.BadOptionUsage(name, f"{name} is true or false, not {value!r}")
    if value in _TRUE:
        pieces.append((option, [name]))
        return
    others = option.opts if name in option.secondary_opts else option.secondary_opts
    opposite = next((other for other in others if other.startswith("-")), None)
    if opposite is not None:
        pieces.append((option, [opposite]))
    else:
        pieces[:] = [piece for piece in pieces if piece[0] is not option]
