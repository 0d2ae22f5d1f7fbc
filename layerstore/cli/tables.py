"""Listings: docker's columns, or one JSON object a line."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from layerstore import model

_MIN_WIDTH = 10
_GAP = 3

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    help="table, or JSON objects, one a line.",
)
no_trunc_option = click.option("--no-trunc", is_flag=True, help="Show everything in full.")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one as it comes."""
    lines = [header, *rows]
    widths = [max(_MIN_WIDTH, *(len(line[at]) + _GAP for line in lines)) for at in range(len(header) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("".join([*cells, line[-1]]).rstrip())


def print_json_lines(objects: Sequence[Mapping[str, Any]]) -> None:
    """One object a line, as docker's ``--format json``."""
    for one in objects:
        click.echo(model.encode(one))


def shorten(text: str, width: int, *, full: bool) -> str:
    """At most `width` characters, the last one an ellipsis when something is left out."""
    return text if full or len(text) <= width else text[: width - 1] + "…"
