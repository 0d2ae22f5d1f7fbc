"""Print listings: docker's columns, one JSON object per line, or a template applied to every object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from layerstore.cli import template
from layerstore.cli.output import as_json, print_json, print_text
from layerstore.errors import one_line

_MIN_WIDTH = 10
_GAP = 3

Columns = Mapping[str, str]  # key of the objects -> header
Objects = Sequence[Mapping[str, Any]]

_FIELD = re.compile(r"\{\{-?\s*(?:\w+\s+)?\.(\w+).*?\}\}")


def _checked(context: click.Context, option: click.Parameter, form: str) -> str:
    """Refuse an invalid format before any work is done."""
    if form not in {"table", "json"}:
        if "{{" not in form:
            raise click.BadParameter(f"{form!r} is neither table nor json nor a template with {{{{.Field}}}}")
        template.compile_template(_unescaped(form))
    return form


format_option = click.option(
    "--format",
    "form",
    metavar="FORMAT",
    default="table",
    callback=_checked,
    help="table; json: one object per line; or a template: '{{.Field}}', 'table {{.Field}}\\t{{.Other}}'.",
)
no_trunc_option = click.option("--no-trunc", is_flag=True, help="Show everything in full.")


def print_listing(form: str, columns: Columns, objects: Objects) -> None:
    """Print `objects` in the format of ``--format``; a table shows the values that have columns."""
    if form == "json":
        print_json_lines(objects)
    elif form == "table":
        print_table(list(columns.values()), [[str(one[key]) for key in columns] for one in objects])
    elif form.startswith("table "):
        _print_chosen(_unescaped(form.removeprefix("table ").strip()), columns, objects)
    else:
        shown = template.compile_template(_unescaped(form))
        for one in objects:
            print_text(shown(one))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns are as wide as their widest cell, the last one is not padded."""
    lines = [header, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_MIN_WIDTH, *(len(line[at]) + _GAP for line in lines)) for at in range(len(header) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print_text("".join([*cells, line[-1]]).rstrip())


def print_json_lines(objects: Objects) -> None:
    """Print one object per line, as docker's ``--format json`` does."""
    for one in objects:
        print_json(as_json(one))


def shorten(text: str, width: int, *, full: bool) -> str:
    """Return at most `width` characters, the last one an ellipsis when something is left out."""
    return text if full or len(text) <= width else text[: width - 1] + "…"


def _print_chosen(text: str, columns: Columns, objects: Objects) -> None:
    """Print a table whose columns are a template's parts between tabs."""
    shown = template.compile_template(text)
    header = _FIELD.sub(lambda found: columns.get(found[1], found[1].upper()), text)
    rows = [shown(one).split("\t") for one in objects]
    titles = header.split("\t")
    print_table(titles, [[*row, *[""] * (len(titles) - len(row))] for row in rows])


def _unescaped(form: str) -> str:
    """Replace ``\\t`` and ``\\n`` outside actions, which a shell leaves as they are."""
    parts = re.split(r"(\{\{.*?\}\})", form, flags=re.DOTALL)
    plain = [part.replace("\\t", "\t").replace("\\n", "\n") for part in parts[::2]]
    parts[::2] = plain
    return "".join(parts)
