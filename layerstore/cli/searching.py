"""The verb search, which lists repositories of a registry."""

from typing import Any

import click

import layerstore
from layerstore.cli.group import examples
from layerstore.cli.options import connection_options, filter_option
from layerstore.cli.remarks import note
from layerstore.cli.tables import format_option, no_trunc_option, print_listing, shorten
from layerstore.transport.base import RegistryOptions

_DEFAULT_LIMIT = 25
_DESCRIPTION_WIDTH = 45
_COLUMNS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}


@click.command(
    "search",
    epilog=examples(
        "layerstore search debian",
        "layerstore search --filter is-official=true --limit 5 python",
        "layerstore search localhost:5000/team    # what that registry has with team in its name",
        "layerstore search --format '{{.Name}}' localhost:5000/",
    ),
)
@filter_option("-f", "--filter", keys="stars=N, is-official=BOOL, is-automated=BOOL")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_DEFAULT_LIMIT,
    metavar="N",
    help="The most results [default: 25].",
)
@no_trunc_option
@format_option
@click.argument("term", metavar="[HOST/]TERM")
@connection_options
def search_command(
    term: str, filters: tuple[str, ...], limit: int, no_trunc: bool, form: str, options: RegistryOptions
) -> None:
    """Search for repositories on docker hub, or in the registry HOST."""
    hits = layerstore.search(term, limit=limit or _DEFAULT_LIMIT, filters=filters, options=options, note=note)
    print_listing(form, _COLUMNS, [_object(hit, no_trunc) for hit in hits])


def _object(hit: Any, no_trunc: bool) -> dict[str, Any]:
    """Return a repository under docker's keys, in docker's words."""
    description = " ".join(hit.description.split())
    return {
        "Name": hit.name,
        "Description": shorten(description, _DESCRIPTION_WIDTH, full=no_trunc),
        "StarCount": hit.star_count,
        "IsOfficial": "[OK]" if hit.is_official else "",
        "IsAutomated": "[OK]" if hit.is_automated else "",
    }
