"""The verb cp, which copies between the host and workspaces."""

import click

import layerstore
from layerstore.cli import completion
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.pipes import data_in, data_out
from layerstore.cli.progress import progress, quiet_option
from layerstore.cli.remarks import note
from layerstore.image import human
from overlayfs_py.errors import mention


@click.command(
    "cp",
    epilog=examples(
        "layerstore cp app.conf work:/etc/",
        "layerstore cp work:/var/log ./logs",
        "layerstore cp src/. work:/usr/src    # what is in src, not src itself",
        "layerstore cp -a work:/etc other:/etc-of-work",
        "tar -C site -cz . | layerstore cp -a - work:/var/www",
        "layerstore cp work:/etc - | tar -tv",
    ),
)
@click.option("-a", "--archive", is_flag=True, help="Keep owners, set-id bits and all extended attributes.")
@click.option("-L", "--follow-link", is_flag=True, help="If SRC is a symbolic link, copy what it leads to.")
@quiet_option
@click.argument("source", metavar="SRC", shell_complete=completion.paths)
@click.argument("target", metavar="DST", shell_complete=completion.paths)
@click.pass_obj
def cp_command(
    root: StoreOption, archive: bool, follow_link: bool, quiet: bool, source: str, target: str
) -> None:
    """Copy files and directories from or to a workspace; one of SRC and DST is NAME:PATH.

    As docker cp: SRC is copied into an existing directory DST under its own name, or only its contents if it
    ends in /.; else the copy gets the name DST, whose parent must exist. Links in a workspace never lead out
    of it. A workspace that is not mounted is mounted meanwhile.

    SRC - is a tar on standard input, plain or compressed, unpacked into the directory DST; DST - is a tar on
    standard output.
    """
    with progress("Copying", quiet=quiet) as report:
        copied = layerstore.cp(
            data_in("redirect a tar to it") if source == "-" else source,
            data_out("redirect it") if target == "-" else target,
            archive=archive,
            follow_link=follow_link,
            root=root.path,
            progress=report,
            note=note,
        )
    if not quiet and "-" not in {source, target}:
        mention(f"Successfully copied {human.size(copied)} to {target}")
