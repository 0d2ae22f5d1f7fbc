"""The verbs on images: import, images, history, inspect, tag, rmi."""

import json
import os
from typing import Any, cast

import click

import layerstore
from layerstore.cli import completion, template
from layerstore.cli.group import StoreOption, examples, for_each
from layerstore.cli.options import changes_option, filter_option, platform_option
from layerstore.cli.output import print_json, print_line, print_text
from layerstore.cli.pipes import data_in
from layerstore.cli.progress import ProgressBar, progress, quiet_option
from layerstore.cli.remarks import note
from layerstore.cli.tables import format_option, no_trunc_option, print_listing, shorten
from layerstore.errors import NotFound
from layerstore.image import human
from layerstore.transport.input import is_url

_NONE = "<none>"
_CREATED_BY_WIDTH = 45


@click.command(
    "import",
    epilog=examples(
        "layerstore import rootfs.tar.gz debian:12",
        "tar -C rootfs -c . | layerstore import -c 'CMD [\"/bin/sh\"]' - base",
        "layerstore import https://example.org/rootfs.tar.zst",
        "layerstore import --platform linux/arm64 arm.tar.xz base:arm",
    ),
)
@changes_option
@click.option("-m", "--message", metavar="MSG", default="", help="The comment in the image's history.")
@click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="What the image runs on [default: this machine's]."
)
@quiet_option
@click.argument("source", metavar="FILE|URL|-", shell_complete=completion.files)
@click.argument("ref", required=False)
@click.pass_obj
def import_command(
    root: StoreOption,
    changes: tuple[str, ...],
    message: str,
    platform: str | None,
    quiet: bool,
    source: str,
    ref: str | None,
) -> None:
    """Make an image of a root filesystem tarball; prints its ID.

    The tarball may be plain or compressed with gzip, bzip2, xz or zstd.
    """
    total = os.stat(source).st_size if os.path.isfile(source) else None
    tarball = data_in("redirect a tarball to it") if source == "-" else source
    with progress("Importing", total, quiet=quiet) as report:
        image_id = layerstore.import_(
            tarball,
            ref,
            changes=changes,
            message=message,
            platform=platform,
            root=root.path,
            progress=_announcing(source, report) if is_url(source) and not quiet else report,
            note=note,
        )
    print_line(image_id)


def _announcing(url: str, report: ProgressBar | None) -> ProgressBar:
    """Return a progress function that prints docker's line once the first bytes have come."""
    announced: list[int] = []

    def progress(done: int, total: int | None = None, /) -> None:
        if not announced:
            print_line(f"Downloading from {url}")
        announced.append(done)
        if report is not None:
            report(done, total)

    return progress


_COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}


@click.command(
    "images",
    epilog=examples(
        "layerstore images",
        "layerstore images 'debian:*'",
        "layerstore rmi $(layerstore images -q --filter dangling=true)",
        "layerstore images --filter label=team=web --filter since=debian:12",
        "layerstore images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    ),
)
@click.option("-q", "--quiet", is_flag=True, help="Print image IDs only.")
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted for docker; no image is hidden.")
@click.option("--digests", is_flag=True, help="Show the manifests' digests.")
@filter_option(
    "-f",
    "--filter",
    keys="dangling=true|false, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME",
)
@no_trunc_option
@format_option
@click.argument("pattern", metavar="[FILTER]", required=False, shell_complete=completion.images)
@click.pass_obj
def images_command(
    root: StoreOption,
    quiet: bool,
    everything: bool,
    digests: bool,
    filters: tuple[str, ...],
    no_trunc: bool,
    form: str,
    pattern: str | None,
) -> None:
    """List images. FILTER is REPOSITORY[:TAG] with *, ? and [...], which never match a slash.

    SIZE is the unpacked size, as in docker; {{.CompressedSize}} is the size in the store. DIGEST is only
    shown for what was pulled or pushed; {{.ManifestDigest}} always is.
    """
    sizes = "Size" in form or (form in {"table", "json"} and not quiet)
    found = layerstore.images(pattern, filters=filters, sizes=sizes, root=root.path, note=note)
    if quiet and form == "table":
        for one in dict.fromkeys(image.id for image in found):
            print_line(one if no_trunc else one.short)
        return
    columns = {key: header for key, header in _COLUMNS.items() if digests or key != "Digest"}
    print_listing(form, columns, [_image_object(image, no_trunc) for image in found])


_NOT_COUNTED = "N/A"  # as docker prints it, which only has these figures after `system df`


def _image_object(image: Any, no_trunc: bool) -> dict[str, Any]:
    """Return an image under docker's keys, and its sizes as numbers too."""
    return {
        "Repository": image.repository or _NONE,
        "Tag": image.tag or _NONE,
        "ID": image.id if no_trunc else image.id.short,
        "Digest": image.digest if image.in_registry else _NONE,
        "ManifestDigest": image.digest,
        "CreatedAt": human.local(image.created),
        "CreatedSince": human.ago(image.created),
        "Size": human.size(image.size or 0),
        "SizeBytes": image.size or 0,
        "VirtualSize": human.size(image.size or 0, digits=4),
        "CompressedSize": human.size(image.compressed_size),
        "CompressedSizeBytes": image.compressed_size,
        "Containers": _NOT_COUNTED,
        "SharedSize": _NOT_COUNTED,
        "UniqueSize": _NOT_COUNTED,
    }


_STEP_COLUMNS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


@click.command(
    "history",
    epilog=examples(
        "layerstore history debian:12",
        "layerstore history --no-trunc 4f9ee6c0d7a1",
        "layerstore history --format '{{.CreatedBy}}' --no-trunc debian:12",
    ),
)
@click.option("-q", "--quiet", is_flag=True, help="Print image IDs only.")
@click.option("-H", "--human/--no-human", "readable", default=True, help="Human-readable sizes and dates.")
@no_trunc_option
@format_option
@platform_option
@click.argument("image", shell_complete=completion.images)
@click.pass_obj
def history_command(
    root: StoreOption,
    quiet: bool,
    readable: bool,
    no_trunc: bool,
    form: str,
    platform: str | None,
    image: str,
) -> None:
    """Show the steps that made an image, newest first."""
    steps = layerstore.history(image, platform=platform, root=root.path)
    objects = [_step_object(step, no_trunc=no_trunc, readable=readable) for step in steps]
    if quiet and form == "table":
        for one in objects:
            print_line(one["ID"])
        return
    columns = _STEP_COLUMNS
    if not readable:
        columns = {("CreatedAt" if key == "CreatedSince" else key): columns[key] for key in columns}
    print_listing(form, columns, objects)


def _step_object(step: Any, *, no_trunc: bool, readable: bool) -> dict[str, Any]:
    created_by = " ".join(step.created_by.split())
    return {
        "ID": "<missing>" if step.id is None else step.id if no_trunc else step.id.short,
        "CreatedAt": human.rfc3339(step.created),
        "CreatedSince": human.ago(step.created),
        "CreatedBy": shorten(created_by, _CREATED_BY_WIDTH, full=no_trunc),
        "Size": human.size(step.size) if readable else str(step.size),
        "SizeBytes": step.size,
        "CompressedSize": human.size(step.compressed_size) if readable else str(step.compressed_size),
        "CompressedSizeBytes": step.compressed_size,
        "Comment": step.comment,
    }


_KINDS = {"image": "image", "workspace": "workspace", "container": "workspace"}
_KIND = click.Choice([*_KINDS])


@click.command(
    "inspect",
    epilog=examples(
        "layerstore inspect debian:12",
        "layerstore inspect quiet_otter | jq '.[0].State'",
        "layerstore inspect -f '{{.Id}} {{json .Config.Env}}' debian:12",
        "layerstore inspect -f '{{range .RepoTags}}{{println .}}{{end}}' 4f9ee6c0d7a1",
    ),
)
@click.option(
    "-f", "--format", "form", metavar="FORMAT", default="json", help="json, or a template: '{{.Config.Cmd}}'."
)
@click.option("--type", "kind", type=_KIND, help="Only an image, or only a workspace (container).")
@click.option("-s", "--size", is_flag=True, help="Show how much space a workspace takes.")
@platform_option
@click.argument("names", metavar="NAME|IMAGE...", nargs=-1, required=True, shell_complete=completion.either)
@click.pass_obj
def inspect_command(
    root: StoreOption, form: str, kind: str | None, size: bool, platform: str | None, names: tuple[str, ...]
) -> None:
    """Print everything about workspaces and images: as a JSON list, or through a template.

    Templates are Go's, as far as docker's users need them: fields, range, if, with, pipelines, and the
    functions json, index, slice, len, join, split, lower, upper, title, truncate, pad, println, printf, eq,
    ne, lt, le, gt, ge, not, and, or.
    """
    shown = None if form == "json" else template.compile_template(form)
    found: list[dict[str, Any]] = []
    try:
        for_each(
            names,
            lambda name: found.append(
                layerstore.inspect(
                    name, kind=cast(Any, _KINDS.get(kind or "")), size=size, platform=platform, root=root.path
                )
            ),
        )
    finally:
        # As docker: print what was found even when something was not.
        if shown is None:
            print_json(json.dumps(found, indent=4, ensure_ascii=False))
        else:
            for one in found:
                print_text(shown(one))


@click.command("tag", epilog=examples("layerstore tag debian:12 registry.example.org/base:1"))
@click.argument("source", metavar="SRC", shell_complete=completion.images)
@click.argument("target", metavar="DST")
@click.pass_obj
def tag_command(root: StoreOption, source: str, target: str) -> None:
    """Give an image another name."""
    layerstore.tag(source, target, root=root.path)


@click.command("rmi", epilog=examples("layerstore rmi debian:12 app:1", "layerstore rmi -f 4f9ee6c0d7a1"))
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Also one with several names or that unmounted workspaces need; ignore missing ones.",
)
@click.option("--no-prune", is_flag=True, help="Leave blobs and unpacked layers for the next rmi or prune.")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images)
@click.pass_obj
def rmi_command(root: StoreOption, force: bool, no_prune: bool, images: tuple[str, ...]) -> None:
    """Remove names of images; an image without a name left goes too, with what only it needed."""

    def remove(image: str) -> None:
        try:
            lines = layerstore.rmi(image, force=force, prune=not no_prune, root=root.path)
        except NotFound as error:
            if not force:
                raise
            note(str(error))  # as docker: a missing image is what the user wanted
            return
        for line in lines:
            print_line(line)

    for_each(images, remove)
