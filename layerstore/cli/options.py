"""Options that several verbs share; those of listings are in `tables`, that of bars in `progress`."""

from collections.abc import Callable
from typing import Any

import click

_Decorator = Callable[[Any], Any]

platform_option = click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several [default: this machine's]."
)
changes_option = click.option(
    "-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="Apply a Dockerfile instruction."
)


def filter_option(*flags: str, keys: str) -> _Decorator:
    """``--filter KEY=VALUE``, any number of times, as `filters`."""
    return click.option(
        *flags, "filters", metavar="KEY=VALUE", multiple=True, help=f"Only those with {keys}."
    )
