"""The verbs on workspaces: create, mount, umount, diff, commit, ps, rm."""

from typing import Any, cast

import click

import layerstore
from layerstore.cli import completion, interrupts
from layerstore.cli.group import StoreOption, examples, for_each
from layerstore.cli.options import (
    connection_options,
    content_trust_option,
    filter_option,
    ignored_option,
    platform_option,
    sparse_option,
)
from layerstore.cli.output import print_line
from layerstore.cli.progress import progress, quiet_option
from layerstore.cli.pulling import get_image, pull_option
from layerstore.cli.remarks import note
from layerstore.cli.tables import format_option, no_trunc_option, print_json_lines, print_listing
from layerstore.image import human
from layerstore.media import Compression
from layerstore.transport.base import RegistryOptions
from layerstore.transport.ensure import PullPolicy


@click.command(
    "create",
    epilog=examples(
        "layerstore create debian:12",
        "layerstore create --name build --init -v /srv/src:/src debian:12",
        "layerstore create --pull missing registry.example.org/base:1",
    ),
)
@click.option("--name", metavar="NAME", help="The workspace's name [default: a made-up one].")
@click.option("--init", is_flag=True, help="Put docker's init layer between image and workspace.")
@click.option(
    "-v",
    "--volume",
    "volumes",
    metavar="HOST:PATH",
    multiple=True,
    help="Bind HOST to PATH at every mount (:ro: read-only).",
)
@platform_option
@pull_option
@quiet_option
@content_trust_option
@click.argument("image", shell_complete=completion.images)
@click.pass_obj
@connection_options
def create_command(
    root: StoreOption,
    name: str | None,
    init: bool,
    volumes: tuple[str, ...],
    platform: str | None,
    pull: PullPolicy,
    quiet: bool,
    image: str,
    options: RegistryOptions,
) -> None:
    """Make a workspace, a writable layer over an image; prints its name.

    A commit leaves out what --init and -v put there.
    """
    get_image(root, image, pull, platform=platform, options=options, quiet=quiet)
    with progress("Unpacking", quiet=quiet) as report:
        made = layerstore.create(
            image,
            name=name,
            init=init,
            volumes=volumes,
            platform=platform,
            root=root.path,
            progress=report,
            note=note,
        )
    print_line(made)


@click.command(
    "mount",
    epilog=examples(
        "layerstore mount build", "layerstore mount build /mnt", "layerstore mount --read-only debian:12 /mnt"
    ),
)
@click.option("-r", "--read-only", is_flag=True, help="Mount an image instead of a workspace.")
@platform_option
@pull_option
@quiet_option
@click.argument("name", metavar="NAME|IMAGE", shell_complete=completion.either)
@click.argument("directory", metavar="[DIR]", required=False, shell_complete=completion.files)
@click.pass_obj
@connection_options
def mount_command(
    root: StoreOption,
    read_only: bool,
    platform: str | None,
    pull: PullPolicy,
    quiet: bool,
    name: str,
    directory: str | None,
    options: RegistryOptions,
) -> None:
    """Mount a workspace, on DIR or on its own directory; prints the mount point when it is usable."""
    if read_only and directory is None:
        raise click.UsageError("mount --read-only IMAGE needs a DIR")
    if read_only:
        get_image(root, name, pull, platform=platform, options=options, quiet=quiet)
    elif pull != "never":
        raise click.UsageError("--pull applies to mount --read-only IMAGE; a workspace already has its image")
    with progress("Unpacking", quiet=quiet) as report:
        place = layerstore.mount(
            name,
            directory,
            read_only=read_only,
            platform=platform,
            root=root.path,
            progress=report,
            note=note,
            settled=interrupts.ignore,  # from here on the command succeeds, and must say so
        )
    print_line(str(place))


@click.command("umount", epilog=examples("layerstore umount build", "layerstore umount /mnt"))
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Even if it is in use, here or elsewhere, and with everything mounted inside.",
)
@click.argument(
    "targets", metavar="NAME|DIR...", nargs=-1, required=True, shell_complete=completion.workspaces
)
@click.pass_obj
def umount_command(root: StoreOption, force: bool, targets: tuple[str, ...]) -> None:
    """Unmount a workspace or an image; returns when everything is written and the daemon has exited."""
    for_each(
        targets,
        lambda target: print_nothing(layerstore.umount(target, force=force, root=root.path, note=note)),
    )


def print_nothing(result: object) -> None:
    """Print nothing: as with umount(8), success is silent."""


@click.command(
    "diff",
    epilog=examples("layerstore diff build", "layerstore diff debian:12 debian:12-changed"),
)
@format_option
@click.argument("first", metavar="NAME|IMAGE", shell_complete=completion.either)
@click.argument("second", metavar="[IMAGE]", required=False, shell_complete=completion.images)
@click.pass_obj
def diff_command(root: StoreOption, form: str, first: str, second: str | None) -> None:
    """List what a workspace changes; given two images, the changes from the first to the second.

    A: added, C: changed, D: deleted.
    """
    for change in layerstore.diff(first, second, root=root.path, note=note):
        if form == "json":
            path = (b"/" + change.path).decode(errors="surrogateescape")
            print_json_lines([{"Kind": change.kind, "Path": path}])
        else:
            print_line(f"{change.kind} /{change.path.decode(errors='surrogateescape')}")


@click.command(
    "commit",
    epilog=examples(
        "layerstore commit -m 'add vim' build debian:vim",
        "layerstore commit -a 'Ada <ada@example.org>' -c 'CMD [\"/bin/bash\"]' build app:1",
        "layerstore commit --squash-unchanged build app:2    # after a chmod -R that changed little",
        "SOURCE_DATE_EPOCH=0 layerstore commit --compression zstd build app:reproducible",
    ),
)
@click.option("-a", "--author", metavar="WHO", default="", help="The author, as in 'Ada <ada@example.org>'.")
@click.option("-m", "--message", metavar="MSG", default="", help="The comment in the image's history.")
@click.option(
    "-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="Apply a Dockerfile instruction."
)
@click.option(
    "-p/ ", "--pause/--no-pause", "pause", default=True, help="Hold writers meanwhile (the default)."
)
@click.option(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="How to compress the layer.",
)
@click.option(
    "--squash-unchanged", is_flag=True, help="Leave out files that differ from the image in their time only."
)
@sparse_option
@click.option(
    "--chain", is_flag=True, help="Continue over the new image, with an empty upper; unmounts it meanwhile."
)
@quiet_option
@click.argument("name")
@click.argument("ref", required=False)
@click.pass_obj
def commit_command(
    root: StoreOption,
    author: str,
    message: str,
    changes: tuple[str, ...],
    pause: bool,
    compression: str,
    squash_unchanged: bool,
    sparse: bool,
    chain: bool,
    quiet: bool,
    name: str,
    ref: str | None,
) -> None:
    """Make an image of a workspace: its image plus one layer of what has changed; prints the image ID."""
    with progress("Committing", quiet=quiet) as report:
        image_id = layerstore.commit(
            name,
            ref,
            author=author,
            message=message,
            changes=changes,
            pause=pause,
            compression=cast(Compression, compression),
            squash_unchanged=squash_unchanged,
            sparse=sparse,
            chain=chain,
            root=root.path,
            progress=report,
            note=note,
        )
    print_line(image_id)


_COLUMNS = {
    "Name": "NAME",
    "Image": "IMAGE",
    "Status": "STATUS",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "Mount": "MOUNT",
}


@click.command(
    "ps",
    epilog=examples(
        "layerstore ps",
        "layerstore ps -q --filter status=unmounted",
        "layerstore ps -s --filter ancestor=debian:12",
        "layerstore ps --format '{{.Name}}\\t{{.Mount}}'",
    ),
)
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted for docker; all are always shown.")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("-s", "--size", is_flag=True, help="Show how much was written in each.")
@click.option("-n", "--last", type=click.IntRange(min=0), metavar="COUNT", help="Only the newest COUNT.")
@click.option("-l", "--latest", is_flag=True, help="Only the newest.")
@filter_option("-f", "--filter", keys="name=PART, status=STATE, ancestor=IMAGE")
@no_trunc_option
@format_option
@click.pass_obj
def ps_command(
    root: StoreOption,
    everything: bool,
    quiet: bool,
    size: bool,
    last: int | None,
    latest: bool,
    filters: tuple[str, ...],
    no_trunc: bool,
    form: str,
) -> None:
    """List workspaces, mounted or not, newest first."""
    found = layerstore.ps(filters=filters, size=size, root=root.path, note=note)
    found = found[: 1 if latest else last]
    if quiet and form == "table":
        for one in found:
            print_line(one.name)
        return
    columns = {key: header for key, header in _COLUMNS.items() if size or key != "Size"}
    print_listing(form, columns, [_workspace_object(one, no_trunc) for one in found])


def _image_shown(one: Any, no_trunc: bool) -> str:
    """Return the image as the user named it; an ID in its short form."""
    if no_trunc or not one.image.startswith("sha256:"):
        return str(one.image)
    return str(one.image_id.short)


def _status(one: Any) -> str:
    if one.status == "mounted":
        return f"Mounted {human.ago(one.mounted_at)}"
    return {"created": "Created", "unmounted": "Unmounted", "dead": "Dead (its daemon has gone)"}[one.status]


def _workspace_object(one: Any, no_trunc: bool) -> dict[str, Any]:
    return {
        "ID": one.name,  # a workspace has no other
        "Name": one.name,
        "Names": one.name,
        "Image": _image_shown(one, no_trunc),
        "ImageID": one.image_id,
        "State": one.status,
        "Status": _status(one),
        "CreatedAt": one.created,
        "CreatedSince": human.ago(one.created),
        "RunningFor": human.ago(one.created),
        "Size": "" if one.size is None else human.size(one.size),
        "Mount": one.mountpoint or "",
    }


@click.command("rm", epilog=examples("layerstore rm build", "layerstore rm -f $(layerstore ps -q)"))
@click.option("-f", "--force", is_flag=True, help="Unmount a mounted one first, even if it is in use.")
@ignored_option("-v", "--volumes")  # there are no anonymous ones
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.workspaces)
@click.pass_obj
def rm_command(root: StoreOption, force: bool, names: tuple[str, ...]) -> None:
    """Remove workspaces with everything written in them; prints their names."""

    def remove(name: str) -> None:
        layerstore.rm(name, force=force, root=root.path)
        print_line(name)

    for_each(names, remove)


@click.command("rename", epilog=examples("layerstore rename quiet_otter build"))
@click.argument("name", shell_complete=completion.workspaces)
@click.argument("new_name")
@click.pass_obj
def rename_command(root: StoreOption, name: str, new_name: str) -> None:
    """Give a workspace that is not mounted another name."""
    layerstore.rename(name, new_name, root=root.path)
