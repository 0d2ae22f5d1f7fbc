"""``--pull`` of the verbs that take an image."""

from typing import get_args

import click

from layerstore.cli.group import Root, note
from layerstore.cli.transfers import transfers
from layerstore.transport.base import RegistryOptions
from layerstore.verbs.present import When, make_present

pull_option = click.option(
    "--pull",
    type=click.Choice(get_args(When)),
    default="never",
    metavar="WHEN",
    help="Get the image from its registry first: always, missing (if it is), or never [default: never].",
)


def get_image(
    root: Root, image: str, when: When, *, platform: str | None, options: RegistryOptions, quiet: bool
) -> None:
    """The image is in the store when this returns; its layers have bars while they come."""
    with transfers(quiet=quiet) as report:
        make_present(
            image, when, platform=platform, options=options, root=root.path, report=report, note=note
        )
