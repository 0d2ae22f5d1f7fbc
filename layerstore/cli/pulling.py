"""``--pull`` of the verbs that take an image."""

from typing import get_args

import click

from layerstore.cli.group import Root
from layerstore.cli.remarks import note
from layerstore.cli.transfers import transfers
from layerstore.transport.base import RegistryOptions
from layerstore.transport.ensure import PullPolicy, ensure_image

pull_option = click.option(
    "--pull",
    type=click.Choice(get_args(PullPolicy)),
    default="never",
    metavar="WHEN",
    help="Get the image from its registry first: always, missing (if it is), or never [default: never].",
)


def get_image(
    root: Root, image: str, policy: PullPolicy, *, platform: str | None, options: RegistryOptions, quiet: bool
) -> None:
    """The image is in the store when this returns; its layers have bars while they come."""
    with transfers(quiet=quiet) as report:
        ensure_image(
            image, policy, platform=platform, options=options, root=root.path, report=report, note=note
        )
