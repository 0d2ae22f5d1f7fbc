"""The part of Go's templates that docker's users write after ``--format``.

Text with ``{{...}}``: fields (``.State.Status``), ``range``, ``if``, ``with``, ``else``, ``end``, pipelines,
and docker's functions. Values print as Go prints them: ``[a b]``, ``map[k:v]``, ``true``, ``<no value>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerstore.cli.output import as_json
from layerstore.errors import LayerstoreError

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_WORD = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<sign>[()|])'
    r"|(?P<path>\$?(?:\.[A-Za-z_]\w*)+|\$|\.)|(?P<name>[A-Za-z_]\w*))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class InvalidTemplate(LayerstoreError):
    """A ``--format`` that is malformed or does not fit the object it is applied to."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """The values of ``$`` and ``.``."""

    top: Any
    dot: Any


@dataclass(frozen=True, slots=True)
class _Nil:
    """Go's nil of a type, which prints as an empty list or map and otherwise counts as None."""

    text: str


# Fields of docker's records that may be nil: JSON shows null, a template prints their type.
_LISTS = ("Cmd", "Entrypoint", "Env", "OnBuild", "Shell")
_MAPS = ("Data", "ExposedPorts", "Labels", "Volumes")
_NILS = {"Healthcheck": _Nil("<nil>")}
_NILS |= dict.fromkeys(_LISTS, _Nil("[]")) | dict.fromkeys(_MAPS, _Nil("map[]"))

Render = Callable[[_Scope], str]
_Value = Callable[[_Scope], Any]


def compile_template(text: str) -> Callable[[Mapping[str, Any]], str]:
    """Return a function that makes text of an object. Raises InvalidTemplate, as may the function."""
    parts = _Parts(list(_split(text)))
    body, stopped = _block(parts)
    if stopped:
        raise InvalidTemplate(f"invalid template: unexpected {{{{{stopped}}}}}")
    return lambda top: body(_Scope(top, top))


def go_text(value: Any) -> str:
    """Return a value as Go's ``fmt`` prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, _Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(go_text, value))}]"
    return str(value)


class _Parts:
    """The texts and actions of a template, read one after the other."""

    def __init__(self, parts: list[tuple[bool, str]]) -> None:
        self._parts = parts
        self._at = 0

    def next(self) -> tuple[bool, str] | None:
        if self._at == len(self._parts):
            return None
        self._at += 1
        return self._parts[self._at - 1]


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is an action, the text or the content of the braces), with trim marks applied."""
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        before = text[at : found.start()]
        before = before.lstrip() if trim else before
        yield False, before.rstrip() if found[1] else before
        trim, at = bool(found[3]), found.end()
        if not re.fullmatch(r"\s*/\*.*\*/\s*", found[2], re.DOTALL):
            yield True, found[2].strip()
    rest = text[at:].lstrip() if trim else text[at:]
    if "{{" in rest:
        raise InvalidTemplate("invalid template: {{ is not closed")
    yield False, rest


def _block(parts: _Parts) -> tuple[Render, str]:
    """Parse up to ``end``, ``else`` or the end of the text; returns the renderer and which it was."""
    nodes: list[Render] = []
    while (part := parts.next()) is not None:
        is_action, text = part
        word = text.partition(" ")[0] if is_action else ""
        if word in {"end", "else"}:
            return _sequence(nodes), text
        if not is_action:
            nodes.append(_literal(text))
        elif word in _BLOCKS:
            nodes.append(_controlled(parts, word, text.partition(" ")[2]))
        else:
            nodes.append(_printed(_pipeline(text)))
    return _sequence(nodes), ""


def _literal(text: str) -> Render:
    return lambda scope: text


def _printed(value: _Value) -> Render:
    return lambda scope: go_text(value(scope))


def _sequence(nodes: list[Render]) -> Render:
    return lambda scope: "".join(node(scope) for node in nodes)


def _controlled(parts: _Parts, word: str, condition: str) -> Render:
    value = _pipeline(condition)
    body, stopped = _block(parts)
    other: Render = _sequence([])
    if stopped.startswith("else if "):
        return _BLOCKS["if"](value, body, _controlled(parts, "if", stopped.removeprefix("else if ")))
    if stopped == "else":
        other, stopped = _block(parts)
    if stopped != "end":
        raise InvalidTemplate(f"invalid template: {{{{{word}}}}} without {{{{end}}}}")
    return _BLOCKS[word](value, body, other)


def _range(value: _Value, body: Render, other: Render) -> Render:
    def run(scope: _Scope) -> str:
        found = _untyped(value(scope))
        if isinstance(found, Mapping):
            found = [found[key] for key in sorted(found)]
        if found is not None and not isinstance(found, list | tuple):
            raise InvalidTemplate(f"cannot range over {go_text(found)!r}")
        return "".join(body(_Scope(scope.top, one)) for one in found) if found else other(scope)

    return run


def _if(value: _Value, body: Render, other: Render) -> Render:
    return lambda scope: (body if _untyped(value(scope)) else other)(scope)


def _with(value: _Value, body: Render, other: Render) -> Render:
    def run(scope: _Scope) -> str:
        found = _untyped(value(scope))
        return body(_Scope(scope.top, found)) if found else other(scope)

    return run


_BLOCKS: dict[str, Callable[[_Value, Render, Render], Render]] = {"range": _range, "if": _if, "with": _with}


def _pipeline(text: str) -> _Value:
    words: _Words = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None or found.lastgroup is None:
            raise InvalidTemplate(f"invalid template: cannot understand {text[at:].strip()!r}")
        kind, word = found.lastgroup, found[found.lastgroup]
        if kind == "path" and found[0] == word and words and words[-1] == ("sign", ")"):
            kind = "path of that"  # a field of the value in parentheses
        words.append((kind, word))
        at = found.end()
    value = _piped(words)
    if words:
        raise InvalidTemplate(f"invalid template: unexpected {words[0][1]!r} in {text!r}")
    return value


_Words = list[tuple[str, str]]


def _piped(words: _Words) -> _Value:
    """Parse commands with ``|`` between them: the value of each is the last argument of the next."""
    value = _command(words, None)
    while words and words[0][1] == "|" and words[0][0] == "sign":
        words.pop(0)
        value = _command(words, value)
    return value


def _command(words: _Words, piped: _Value | None) -> _Value:
    if words and words[0][0] == "name" and words[0][1] not in _CONSTANTS:
        name = words.pop(0)[1]
        if name not in FUNCTIONS:
            raise InvalidTemplate(f"invalid template: there is no function {name!r}")
        arguments: list[_Value] = []
        while words and words[0] not in {("sign", "|"), ("sign", ")")}:
            arguments.append(_operand(words))
        arguments += [] if piped is None else [piped]
        return lambda scope: _call(name, [argument(scope) for argument in arguments])
    if piped is not None:
        raise InvalidTemplate("invalid template: a function must follow |")
    return _operand(words)


_CONSTANTS = {"true": True, "false": False, "nil": None}


def _operand(words: _Words) -> _Value:
    if not words:
        raise InvalidTemplate("invalid template: a value is missing")
    kind, text = words.pop(0)
    if (kind, text) == ("sign", "("):
        value = _piped(words)
        if not words or words.pop(0) != ("sign", ")"):
            raise InvalidTemplate("invalid template: ( is not closed")
        if words and words[0][0] == "path of that":
            path = words.pop(0)[1]
            return lambda scope: _field(_Scope(None, _untyped(value(scope))), path)
        return value
    if kind == "text":
        plain = text[1:-1]
        if text.startswith('"'):
            plain = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), plain)
        return lambda scope: plain
    if kind == "number":
        number = float(text) if "." in text else int(text)
        return lambda scope: number
    if kind == "path":
        return lambda scope: _field(scope, text)
    if kind == "name" and text in _CONSTANTS:
        return lambda scope: _CONSTANTS[text]
    raise InvalidTemplate(f"invalid template: unexpected {text!r}")


def _field(scope: _Scope, path: str) -> Any:
    value = scope.top if path.startswith("$") else scope.dot
    is_top = value is scope.top
    for name in filter(None, path.removeprefix("$").split(".")):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise InvalidTemplate(f"{path}: {go_text(value)!r} has no field {name}")
        if is_top and name not in value:
            raise InvalidTemplate(f"{path}: there is no field {name}; there are {', '.join(value)}")
        value, is_top = value.get(name), False
    return _NILS.get(path.rpartition(".")[2]) if value is None else value


def _untyped(value: Any) -> Any:
    return None if isinstance(value, _Nil) else value


def _call(name: str, arguments: list[Any]) -> Any:
    if not name.startswith("print"):
        arguments = [_untyped(argument) for argument in arguments]
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, IndexError, AttributeError):
        shown = " ".join(go_text(argument) for argument in arguments)
        raise InvalidTemplate(f"the function {name} cannot be applied to: {shown}") from None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            return ""
        value = value.get(key, "") if isinstance(value, Mapping) else value[int(key)]
    return value


def _printf(form: str, *arguments: Any) -> str:
    left = list(arguments)

    def shown(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        value = left.pop(0)
        text = as_json(str(value)) if found[2] == "q" else go_text(value)
        width = int(found[1] or 0)
        return text.ljust(-width) if width < 0 else text.rjust(width)

    return re.sub(r"%(-?\d+)?([svdq])|%%", shown, form)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": as_json,
    "index": _index,
    "len": lambda value: len(value or ()),
    "join": lambda values, separator: separator.join(map(go_text, values or ())),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text.title(),
    "truncate": lambda text, length: text[:length],
    "pad": lambda text, before, after: " " * before + text + " " * after if text else "",
    "print": lambda *values: "".join(map(go_text, values)),
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
    "slice": lambda value, *bounds: value[slice(*bounds)] if bounds[1:] else value[bounds[0] :],
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}
