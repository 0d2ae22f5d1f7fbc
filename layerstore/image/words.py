"""The small language inside an instruction: continuation lines, quotes, variables, JSON forms.

Pure text in, text out; which instruction treats its arguments how is `instructions`' affair.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from layerstore.errors import LayerstoreError, checked_text

# A shell's own parameters ($1, $$) are empty here.
_NAME = r"[A-Za-z_]\w*|\d+|[@*#?$!-]"
_VARIABLE = re.compile(rf"\$(?:({_NAME})|\{{({_NAME})(?:(:?[-+?])([^}}]*))?\}})", re.ASCII)
_QUOTED_ESCAPES = '"$\\'


class InvalidInstruction(LayerstoreError):
    """A ``-c`` instruction cannot be understood; the message repeats it."""


def logical_lines(changes: Iterable[str]) -> Iterator[str]:
    """Instructions, one a line: comments and empty lines dropped, lines ending in a backslash joined."""
    pending = ""
    for line in "\n".join(changes).split("\n"):
        if not pending and line.lstrip().startswith("#"):
            continue
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        if text := (pending + line).strip():
            yield text
        pending = ""
    if text := pending.strip():
        yield text


def raw_words(text: str) -> list[str]:
    """Split at white space outside quotes; quotes and backslashes stay in the words."""
    words: list[str] = []
    word, quote, escaped = "", "", False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word = ""
            continue
        word += char
    if quote:
        raise InvalidInstruction(f"a quotation mark is not closed in {text!r}")
    return [*words, word] if word else words


def expand(word: str, env: Mapping[str, str]) -> str:
    """Remove quotes and backslashes as a shell does and replace ``$NAME``, ``${NAME:-default}``,
    ``${NAME:+other}``.
    """
    out, quote, at = "", "", 0
    while at < len(word):
        char = word[at]
        at += 1
        if char == "\\" and quote != "'" and at < len(word):
            if quote == '"' and word[at] not in _QUOTED_ESCAPES:
                out += char
            out += word[at]
            at += 1
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif char == "$" and quote != "'":
            value, at = _variable(word, at - 1, env)
            out += value
        else:
            out += char
    return out


def _variable(word: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    """The value of the variable that starts at `at`, and where the text after it starts."""
    found = _VARIABLE.match(word, at)
    if not found:
        if word.startswith("${", at):
            raise InvalidInstruction(f"unsupported substitution in {word!r}")
        return "$", at + 1
    name, operator, other = found[1] or found[2], found[3] or "", found[4] or ""
    value = env.get(name)
    is_set = value is not None and not (operator.startswith(":") and value == "")
    if operator.endswith("-") and not is_set:
        return expand(other, env), found.end()
    if operator.endswith("+"):
        return (expand(other, env) if is_set else ""), found.end()
    if operator.endswith("?") and not is_set:
        raise InvalidInstruction(f"{name}: {expand(other, env) or 'it is not set'}")
    return value or "", found.end()


def expanded_words(text: str, env: Mapping[str, str]) -> list[str]:
    """`raw_words`, each expanded."""
    return [expand(word, env) for word in raw_words(text)]


def json_words(text: str) -> list[str] | None:
    """The JSON form ``["a", "b"]``; None when the text is not one (docker then takes the shell form)."""
    if not text.startswith("["):
        return None
    import json  # few instructions have this form

    try:
        words, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if text[end:].strip():
        raise InvalidInstruction(f"{text[end:].strip()!r} follows the JSON form")
    if not all(isinstance(word, str) for word in words):
        raise InvalidInstruction("the JSON form may hold strings only")
    return [checked_text(word, "a string of the JSON form") for word in words]


def name_values(text: str, env: Mapping[str, str]) -> list[tuple[str, str]]:
    """``k=v k2="v 2"``, or the old form ``k the rest of the line``."""
    words = raw_words(text)
    if words and "=" not in words[0]:
        rest = text.strip().removeprefix(words[0]).strip()
        if not rest:
            raise InvalidInstruction(f"{text!r} must have the form NAME=VALUE")
        return [(expand(words[0], env), expand(rest, env))]
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidInstruction(f"{word!r} must have the form NAME=VALUE")
        pairs.append((expand(name, env), expand(value, env)))
    return pairs
