"""The verbs on images: import, images, history, inspect, tag, rmi."""

import os
import sys
from typing import Any

import click

import layerstore
from layerstore.cli.group import Root, examples, for_each, note
from layerstore.cli.interrupts import standard_input
from layerstore.cli.progress import progress, quiet_option
from layerstore.cli.tables import format_option, no_trunc_option, print_json_lines, print_table, shorten
from layerstore.errors import NotFound
from layerstore.image import human

_NONE = "<none>"
_CREATED_BY_WIDTH = 45


@click.command(
    "import",
    epilog=examples(
        "layerstore import rootfs.tar.gz debian:12",
        "tar -C rootfs -c . | layerstore import -c 'CMD [\"/bin/sh\"]' - base",
        "layerstore import https://example.org/rootfs.tar.zst",
    ),
)
@click.option(
    "-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="Apply a Dockerfile instruction."
)
@click.option("-m", "--message", metavar="MSG", default="", help="The comment in the image's history.")
@quiet_option
@click.argument("source", metavar="FILE|URL|-")
@click.argument("ref", required=False)
@click.pass_obj
def import_command(
    root: Root, changes: tuple[str, ...], message: str, quiet: bool, source: str, ref: str | None
) -> None:
    """Make an image of a root filesystem tarball; prints its ID.

    The tarball may be plain or compressed with gzip, bzip2, xz or zstd.
    """
    total = os.stat(source).st_size if os.path.isfile(source) else None
    if source == "-" and sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: redirect a tarball to it")
    with progress("Importing", total, quiet=quiet) as report:
        image_id = layerstore.import_(
            standard_input() if source == "-" else source,
            ref,
            changes=changes,
            message=message,
            root=root.path,
            progress=report,
            note=note,
        )
    click.echo(image_id)


@click.command(
    "images",
    epilog=examples(
        "layerstore images", "layerstore images 'debian:*'", "layerstore images --digests --format json"
    ),
)
@click.option("-q", "--quiet", is_flag=True, help="Print image IDs only.")
@click.option("--digests", is_flag=True, help="Show the manifests' digests.")
@no_trunc_option
@format_option
@click.argument("pattern", metavar="[FILTER]", required=False)
@click.pass_obj
def images_command(
    root: Root, quiet: bool, digests: bool, no_trunc: bool, form: str, pattern: str | None
) -> None:
    """List images (also: ls); FILTER is REPOSITORY[:TAG] with * and ?. SIZE is what the image takes in the
    store.
    """
    found = layerstore.images(pattern, root=root.path, note=note)
    if quiet:
        for one in dict.fromkeys(image.id for image in found):
            click.echo(one if no_trunc else one.short)
        return
    if form == "json":
        print_json_lines([_image_object(image, no_trunc) for image in found])
        return
    rows: list[list[str]] = []
    for image in found:
        row = [image.repository or _NONE, image.tag or _NONE]
        row += [image.digest] if digests else []
        row += [image.id if no_trunc else image.id.short, human.ago(image.created), human.size(image.size)]
        rows.append(row)
    digest_column = ["DIGEST"] if digests else []
    print_table(["REPOSITORY", "TAG", *digest_column, "IMAGE ID", "CREATED", "SIZE"], rows)


def _image_object(image: Any, no_trunc: bool) -> dict[str, Any]:
    """docker's keys, and the size as a number."""
    return {
        "Repository": image.repository or _NONE,
        "Tag": image.tag or _NONE,
        "ID": image.id if no_trunc else image.id.short,
        "Digest": image.digest,
        "CreatedAt": human.local(image.created),
        "CreatedSince": human.ago(image.created),
        "Size": human.size(image.size),
        "SizeBytes": image.size,
    }


@click.command(
    "history", epilog=examples("layerstore history debian:12", "layerstore history --no-trunc 4f9ee6c0d7a1")
)
@click.option("-q", "--quiet", is_flag=True, help="Print image IDs only.")
@no_trunc_option
@format_option
@click.argument("image")
@click.pass_obj
def history_command(root: Root, quiet: bool, no_trunc: bool, form: str, image: str) -> None:
    """Show the steps that made an image, newest first."""
    rows: list[list[str]] = []
    objects: list[dict[str, Any]] = []
    for step in layerstore.history(image, root=root.path):
        shown = "<missing>" if step.id is None else step.id if no_trunc else step.id.short
        created_by = shorten(" ".join(step.created_by.split()), _CREATED_BY_WIDTH, full=no_trunc)
        rows.append([shown, human.ago(step.created), created_by, human.size(step.size), step.comment])
        objects.append(
            {
                "ID": shown,
                "CreatedAt": step.created or "",
                "CreatedSince": human.ago(step.created),
                "CreatedBy": step.created_by,
                "Size": human.size(step.size),
                "SizeBytes": step.size,
                "Comment": step.comment,
            }
        )
    if quiet:
        for row in rows:
            click.echo(row[0])
    elif form == "json":
        print_json_lines(objects)
    else:
        print_table(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], rows)


@click.command(
    "inspect",
    epilog=examples("layerstore inspect debian:12", "layerstore inspect quiet_otter | jq '.[0].State'"),
)
@click.option("--format", "form", type=click.Choice(["json"]), default="json", help="JSON is the only one.")
@click.argument("names", metavar="NAME|IMAGE...", nargs=-1, required=True)
@click.pass_obj
def inspect_command(root: Root, form: str, names: tuple[str, ...]) -> None:
    """Print all there is to know about workspaces and images as a JSON list."""
    import json

    found: list[dict[str, Any]] = []
    try:
        for_each(names, lambda name: found.append(layerstore.inspect(name, root=root.path)))
    finally:
        # As docker: what was found is printed even when something was not.
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))


@click.command("tag", epilog=examples("layerstore tag debian:12 registry.example.org/base:1"))
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.pass_obj
def tag_command(root: Root, source: str, target: str) -> None:
    """Give an image another name."""
    layerstore.tag(source, target, root=root.path)


@click.command("rmi", epilog=examples("layerstore rmi debian:12", "layerstore rmi -f 4f9ee6c0d7a1"))
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Also one with several names by its ID, one that unmounted workspaces need, or none.",
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_obj
def rmi_command(root: Root, force: bool, images: tuple[str, ...]) -> None:
    """Remove names of images, and images that have none left with what only they needed."""

    def remove(image: str) -> None:
        try:
            lines = layerstore.rmi(image, force=force, root=root.path)
        except NotFound as error:
            if not force:
                raise
            note(str(error))  # as docker: it is not there, which is what was wanted
            return
        for line in lines:
            click.echo(line)

    for_each(images, remove)
