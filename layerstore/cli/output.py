"""Print exactly for programs, and without control sequences on a terminal.

Names, comments and commands come from images and may contain anything. Text for people (tables, notes,
errors) is always escaped. Text that a program may read (templates, a mount point) is escaped only when
standard output is a terminal. JSON escapes invisible characters by number, which changes nothing for its
reader.
"""

import json
import sys

import click

from layerstore.errors import one_line


def print_line(line: str) -> None:
    """Print one line that a program may read; on a terminal it is escaped and stays one line."""
    print_text(one_line(line) if not line.isprintable() and sys.stdout.isatty() else line)


def print_text(text: str) -> None:
    """Print lines that a program may read; on a terminal all but newlines and tabs is escaped."""
    if not text.isprintable() and sys.stdout.isatty():
        text = "".join(c if c in "\n\t" else one_line(c) for c in text)
    click.echo(text, color=True)  # else click removes escape sequences when a program reads


def as_json(value: object) -> str:
    """Return compact JSON; bytes of a path that are not UTF-8 are escaped by number."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return "".join(_by_number(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def print_json(text: str) -> None:
    """Print a JSON text, indented or not, with invisible characters escaped by number."""
    is_utf8 = sys.stdout.encoding.lower() == "utf-8"  # else everything but ASCII is escaped
    if not text.isprintable() or not (is_utf8 or text.isascii()):
        # JSON's structure is ASCII, so all other characters are in strings.
        text = "".join(
            c if c == "\n" or (c.isprintable() and (is_utf8 or c.isascii())) else _by_number(c) for c in text
        )
    click.echo(text)


def _by_number(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
