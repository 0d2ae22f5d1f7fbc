"""The verbs on archives: save, load, export."""

import os
from typing import IO, Any, cast

import click

import layerstore
from layerstore.cli import completion
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.options import platform_option, sparse_option
from layerstore.cli.output import print_line
from layerstore.cli.pipes import data_in, data_out
from layerstore.cli.progress import progress, quiet_option
from layerstore.cli.remarks import note


@click.command(
    "save",
    epilog=examples(
        "layerstore save -o debian.tar debian:12",
        "layerstore save app:1 app:2 base | zstd > images.tar.zst",
        "layerstore save --format oci -o app.oci.tar app    # all tags of app",
        "layerstore save app:1 | ssh host docker load",
    ),
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker", "oci"]),
    default="docker",
    show_default=True,
    help="docker: for docker, podman, skopeo; oci: an OCI image layout alone.",
)
@click.option("--platform", metavar="OS/ARCH", help="Of an image for several platforms, only this one.")
@quiet_option
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images)
@click.pass_obj
def save_command(
    root: StoreOption,
    output: str | None,
    form: str,
    platform: str | None,
    quiet: bool,
    images: tuple[str, ...],
) -> None:
    """Write images to one archive; a repository without a tag stands for all its tags.

    Both forms keep the manifests, and so all digests, for layerstore and every tool that reads the image
    layout in them. Tools that only read manifest.json (docker before 25, docker-archive: of skopeo and
    podman) keep the image ID.
    """
    target = _target(output)
    with progress("Saving", quiet=quiet) as report:
        layerstore.save(
            images,
            target,
            form=cast(Any, form),
            platform=platform,
            root=root.path,
            progress=report,
            note=note,
        )


@click.command(
    "load",
    epilog=examples(
        "layerstore load -i debian.tar.gz",
        "docker save app:1 | layerstore load",
        "layerstore load --platform linux/arm64 -i multi.tar",
        "skopeo copy docker://debian:12 oci-archive:d.tar:debian:12 && layerstore load -i d.tar",
    ),
)
@click.option("-i", "--input", "source", metavar="FILE", help="Read FILE instead of standard input.")
@click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Of images for several platforms, only this one."
)
@quiet_option
@click.pass_obj
def load_command(root: StoreOption, source: str | None, platform: str | None, quiet: bool) -> None:
    """Load images from a docker-archive or an oci-archive; prints their names, or else their IDs.

    The archive may be plain or compressed with gzip, bzip2, xz or zstd. With --platform an image for several
    platforms is loaded without its index, and one for another platform is an error.
    """
    archive = data_in("use -i FILE, or redirect an archive to it") if source is None else source
    total = os.stat(source).st_size if source is not None and os.path.isfile(source) else None
    with progress("Loading", total, quiet=quiet) as report:
        loaded = layerstore.load(
            archive,
            platform=platform,
            root=root.path,
            progress=report,
            note=note,
        )
    for one in loaded:
        if one.replaced is not None:
            left = f"renaming the old one with ID {one.replaced} to empty string"
            print_line(f"The image {one.reference} already exists, {left}")
        print_line(
            f"Loaded image ID: {one.image_id}" if one.reference is None else f"Loaded image: {one.reference}"
        )


@click.command(
    "export",
    epilog=examples(
        "layerstore export -o work.tar work",
        "layerstore export debian:12 | tar -t",
        "layerstore export work | layerstore import - flat:1",
    ),
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output.")
@platform_option
@sparse_option
@quiet_option
@click.argument("name", metavar="NAME|IMAGE", shell_complete=completion.either)
@click.pass_obj
def export_command(
    root: StoreOption, output: str | None, platform: str | None, sparse: bool, quiet: bool, name: str
) -> None:
    """Write the tree of a workspace or an image as one plain tar; without history or configuration.

    Bind mounts of a workspace (create -v) are left out.
    """
    target = _target(output)
    with progress("Exporting", quiet=quiet) as report:
        layerstore.export(
            name, target, platform=platform, sparse=sparse, root=root.path, progress=report, note=note
        )


def _target(output: str | None) -> str | IO[bytes]:
    if output is not None and output != "-":
        return output
    return data_out("use -o FILE, or redirect it")
