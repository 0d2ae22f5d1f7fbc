"""Options as docker's users write them: ``--no-trunc=true``, ``-qa=false``, ``-f='{{.Id}}'``.

Translates words to words with the same meaning for click, whose flags take no values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

_Piece = tuple[click.Option | None, list[str]]  # an option with its value, or another word


def plain(parameters: Iterable[click.Parameter], words: Sequence[str]) -> list[str]:
    """Return a command's words as click accepts them. Raises BadOptionUsage for a flag's value."""
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
    """Split a cluster of short options as Go's pflag does: its last letter may have a value."""
    cluster = word[1:]
    while cluster:
        name, rest = f"-{cluster[0]}", cluster[1:]
        option = named.get(name)
        if option is None:
            pieces.append((None, [f"-{cluster}"]))  # click reports what is wrong with it
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
    """Yield the next word, unread, if it is the option's value."""
    if option is not None and not option.is_flag and not option.count and left:
        yield left.pop(0)


def _switch(pieces: list[_Piece], option: click.Option, name: str, value: str) -> None:
    """Add a flag with a value: the flag, or its opposite; without an opposite, remove the flag."""
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
