"""The option ``--pull`` of verbs that use an image."""

from typing import get_args

import click

from layerstore.cli.group import StoreOption
from layerstore.cli.remarks import note
from layerstore.cli.transfer_bars import transfer_bars
from layerstore.transport.base import RegistryOptions
from layerstore.transport.ensure import PullPolicy, ensure_image

pull_option = click.option(
    "--pull",
    type=click.Choice(get_args(PullPolicy)),
    default="never",
    metavar="WHEN",
    help="Pull the image first: always, missing (only if it is) or never [default: never].",
)


def get_image(
    root: StoreOption,
    image: str,
    policy: PullPolicy,
    *,
    platform: str | None,
    options: RegistryOptions,
    quiet: bool,
) -> None:
    """Make sure that the store has the image; shows bars while its layers come."""
    with transfer_bars(quiet=quiet) as report:
        ensure_image(
            image, policy, platform=platform, options=options, root=root.path, report=report, note=note
        )
