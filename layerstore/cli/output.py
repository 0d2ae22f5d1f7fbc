"""Printing: exact for programs, and nothing on a terminal that acts on it.

Names, comments and commands come with images. What people alone read (tables, remarks, errors) is escaped
always; what a program may read (templates, a mount point) only where standard output is a terminal; JSON
says every character that nobody can see by its number, which reads as the same.
"""

import json
import sys

import click

from layerstore.errors import one_line


def tell_line(line: str) -> None:
    """Print one line that a program may read; on a terminal nothing in it acts, and it stays one."""
    tell(one_line(line) if not line.isprintable() and sys.stdout.isatty() else line)


def tell(text: str) -> None:
    """Print lines that a program may read; on a terminal only their ends and tabs act."""
    if not text.isprintable() and sys.stdout.isatty():
        text = "".join(c if c in "\n\t" else one_line(c) for c in text)
    click.echo(text, color=True)  # else it takes escape sequences out, where a program reads


def as_json(value: object) -> str:
    """Compact JSON of anything that is listed; bytes of a path that are not UTF-8 stand by their numbers."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return "".join(_by_number(c) if "\ud800" <= c <= "\udfff" else c for c in text)


def tell_json(text: str) -> None:
    """Print a JSON text, indented or not."""
    is_utf8 = sys.stdout.encoding.lower() == "utf-8"  # else all but ASCII stands by its number
    if not text.isprintable() or not (is_utf8 or text.isascii()):
        # Structure is ASCII, so all others stand in strings.
        text = "".join(
            c if c == "\n" or (c.isprintable() and (is_utf8 or c.isascii())) else _by_number(c) for c in text
        )
    click.echo(text)


def _by_number(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
