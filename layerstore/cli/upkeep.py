"""The verbs that maintain a store: prune, df, fsck."""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

import layerstore
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.options import filter_option, ignored_option
from layerstore.cli.output import print_line, print_text
from layerstore.cli.progress import progress, quiet_option
from layerstore.cli.remarks import note
from layerstore.cli.tables import format_option, print_json_lines, print_listing, print_table
from layerstore.errors import one_line
from layerstore.image import human

if TYPE_CHECKING:
    from layerstore.verbs.df import ImageUsage, LayerUsage, WorkspaceUsage


@click.command(
    "prune",
    epilog=examples(
        "layerstore prune",
        "layerstore prune --all          # also images with names that no workspace needs",
        "layerstore prune -f --all --filter until=240h --filter label!=keep",
        "layerstore prune -f --all --workspaces    # all but what is mounted",
    ),
)
@click.option(
    "-a", "--all", "all_images", is_flag=True, help="Also images with names, if no workspace needs them."
)
@click.option("--workspaces", is_flag=True, help="Also workspaces that are not mounted, with their contents.")
@filter_option("--filter", keys="until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
@ignored_option("--volumes")  # there are no anonymous ones
@click.pass_obj
def prune_command(
    root: StoreOption,
    all_images: bool,
    workspaces: bool,
    filters: tuple[str, ...],
    force: bool,
    images: bool = True,
) -> None:
    """Remove what is not needed: nameless images without workspaces, and all that no image needs.

    It asks first, unless -f is given. When standard input is empty, it removes only nameless images; --all
    and --workspaces then need -f.
    """
    what = [_STOPPED] if workspaces else []
    what += [_UNUSED if all_images else _DANGLING] if images else []
    if not force and not _agreed(what):
        click.echo(f"Total reclaimed space: {human.size(0)}")
        return
    pruned = layerstore.prune(
        images=images,
        all_images=all_images,
        workspaces=workspaces,
        filters=filters,
        root=root.path,
        note=note,
    )
    if pruned.workspaces:
        _print_list("Deleted Workspaces:", pruned.workspaces)
    lines = [f"untagged: {name}" for name in pruned.untagged]
    lines += [f"deleted: {digest}" for digest in pruned.deleted]
    if lines:
        _print_list("Deleted Images:", lines)
    print_text(f"Total reclaimed space: {human.size(pruned.freed, digits=4)}")


def _print_list(title: str, lines: Sequence[str]) -> None:
    for line in [title, *lines, ""]:
        print_line(line)


_STOPPED = "all stopped containers (workspaces that are not mounted, with everything in them)"
_UNUSED = "all images without at least one container associated to them"
_DANGLING = "all dangling images"
_ANSWER_SECONDS = 1.0  # how long a pipe may take to answer before the question is shown


def _agreed(what: Sequence[str]) -> bool:
    """Ask in docker's words; returns whether the answer is yes. A pipe may give the answer.

    Without an answer (cron) only nameless images may be removed.
    """
    items = f" {what[0]}.\n" if len(what) == 1 else ":\n" + "".join(f"  - {one}\n" for one in what) + "\n"
    question = f"WARNING! This will remove{items}Are you sure you want to continue? [y/N] "
    answer = None
    if not sys.stdin.isatty() and select.select([sys.stdin], [], [], _ANSWER_SECONDS)[0]:
        answer = sys.stdin.readline()
        if not answer and [*what] == [_DANGLING]:
            return True
    click.echo(question, nl=False)
    answer = sys.stdin.readline() if answer is None else answer
    if not answer and not sys.stdin.isatty():
        raise click.UsageError("cannot ask: standard input is not a terminal; use -f")
    return answer.strip().lower() == "y"


_COLUMNS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


@click.command("df", epilog=examples("layerstore df", "layerstore df -v", "layerstore df --format json"))
@click.option("-v", "--verbose", is_flag=True, help="Show each image, unpacked layer and workspace.")
@format_option
@click.pass_obj
def df_command(root: StoreOption, verbose: bool, form: str) -> None:
    """Show the space that is used: by images, unpacked layers and workspaces, and how much could be freed."""
    if verbose:
        _print_details(root, form)
        return
    found = layerstore.df(root=root.path, note=note)
    objects = [
        {
            "Type": one.type,
            "TotalCount": one.total,
            "Active": one.active,
            "Size": human.size(one.size),
            "SizeBytes": one.size,
            "Reclaimable": _reclaimable(one.reclaimable, one.size),
            "ReclaimableBytes": one.reclaimable,
        }
        for one in found
    ]
    print_listing(form, _COLUMNS, objects)


def _print_details(root: StoreOption, form: str) -> None:
    if form not in {"table", "json"}:
        raise click.UsageError("df -v supports the formats table and json")
    found = layerstore.df_details(root=root.path, note=note)
    objects = {
        "Images": [_image_usage(one) for one in found.images],
        "Layers": [_layer_usage(one) for one in found.layers],
        "Workspaces": [_workspace_usage(one) for one in found.workspaces],
    }
    if form == "json":
        print_json_lines([objects])
        return
    for number, (title, rows) in enumerate(objects.items()):
        print_text(("\n" if number else "") + f"{title} space usage:\n")
        print_table(_DETAILS[title], [[str(value) for value in row.values()] for row in rows])


_DETAILS = {
    "Images": ["IMAGE", "IMAGE ID", "CREATED", "SHARED SIZE", "UNIQUE SIZE", "WORKSPACES"],
    "Layers": ["DIFF ID", "IMAGES", "SIZE"],
    "Workspaces": ["NAME", "IMAGE", "STATUS", "CREATED", "SIZE"],
}


def _image_usage(one: ImageUsage) -> dict[str, Any]:
    return {
        "Names": ", ".join(one.names) or "<none>",
        "ID": one.id.short,
        "CreatedSince": human.ago(one.created),
        "SharedSize": human.size(one.shared),
        "UniqueSize": human.size(one.unique),
        "Workspaces": one.workspaces,
    }


def _layer_usage(one: LayerUsage) -> dict[str, Any]:
    return {"DiffID": one.diff_id.short, "Images": one.images, "Size": human.size(one.size)}


def _workspace_usage(one: WorkspaceUsage) -> dict[str, Any]:
    return {
        "Name": one.name,
        "Image": one.image,
        "Status": one.status,
        "CreatedSince": human.ago(one.created),
        "Size": human.size(one.size),
    }


def _reclaimable(part: int, whole: int) -> str:
    """Return a size with its share of the whole, as docker does, if there is anything."""
    return f"{human.size(part)} ({100 * part // whole}%)" if whole else human.size(part)


@click.command(
    "fsck",
    epilog=examples(
        "layerstore fsck", "layerstore fsck --quick", "layerstore fsck --repair && layerstore prune"
    ),
)
@click.option("--repair", is_flag=True, help="Remove damaged blobs, broken images' names, dead mounts.")
@click.option("--quick", is_flag=True, help="Do not read contents.")
@quiet_option
@click.pass_obj
def fsck_command(root: StoreOption, repair: bool, quick: bool, quiet: bool) -> None:
    """Check the whole store: every blob's digest and size, the index, unpacked layers, workspaces.

    Prints a line for each problem and exits with 1 if one is left. --repair removes what is broken and
    nothing else: a broken image must be pulled or loaded again, a broken layer is unpacked again when it is
    next needed.
    """
    with progress("Checking", quiet=quiet) as report:
        checked = layerstore.fsck(repair=repair, quick=quick, root=root.path, progress=report, note=note)
    for problem in checked.problems:
        what = one_line(problem.what)
        print_text(f"{what}: repaired" if problem.repaired else what)
    left = sum(not problem.repaired for problem in checked.problems)
    counts = [(checked.blobs, "blob"), (checked.layers, "layer"), (checked.images, "image")]
    counts.append((checked.workspaces, "workspace"))
    seen = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    if not quiet:
        found = len(checked.problems)
        said = f"{found} problem{'' if found == 1 else 's'}" if found else "no problems"
        print_text(f"{seen}: {said}" + (f", {found - left} repaired" if repair and found else ""))
    if left:
        raise click.exceptions.Exit(1)
