"""The verbs on the program and its store as a whole: info, version."""

from collections.abc import Mapping
from typing import Any

import click

import layerstore
from layerstore.cli import template
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.output import as_json, tell, tell_json
from layerstore.image import human

_format_option = click.option(
    "-f", "--format", "form", metavar="FORMAT", help="json, or a template: '{{.Driver}}'."
)


@click.command("info", epilog=examples("layerstore info", "layerstore info --format '{{.DockerRootDir}}'"))
@_format_option
@click.pass_obj
def info_command(root: StoreOption, form: str | None) -> None:
    """Show what the store holds, and the machine it is on."""
    told = layerstore.info(root=root.path)
    if form is not None:
        _print(form, told)
        return
    tell(f"Client:\n Version:    {told['ServerVersion']}\n\nServer:")
    tell(f" Containers: {told['Containers']}")
    for key in ("Running", "Paused", "Stopped"):
        tell(f"  {key}: {told[f'Containers{key}']}")
    tell(f" Images: {told['Images']}")
    for title, key in _LINES.items():
        tell(f" {title}: {human.binary_size(told[key]) if key == 'MemTotal' else told[key]}")


_LINES = {
    "Server Version": "ServerVersion",
    "Storage Driver": "Driver",
    "Kernel Version": "KernelVersion",
    "Operating System": "OperatingSystem",
    "OSType": "OSType",
    "Architecture": "Architecture",
    "CPUs": "NCPU",
    "Total Memory": "MemTotal",
    "Name": "Name",
    "Docker Root Dir": "DockerRootDir",
    "Registry": "IndexServerAddress",
}


@click.command(
    "version", epilog=examples("layerstore version", "layerstore version --format '{{.Client.Version}}'")
)
@_format_option
def version_command(form: str | None) -> None:
    """Show the version of this program, of Python and of the kernel."""
    told = layerstore.version()
    if form is not None:
        _print(form, told)
        return
    one = told["Client"]
    rows = {
        "Version": one["Version"],
        "Python version": one["PythonVersion"],
        "Kernel version": one["KernelVersion"],
        "OS/Arch": f"{one['Os']}/{one['Arch']}",
    }
    tell("\n".join(["Client:", *(f" {title + ':':<18} {value}" for title, value in rows.items())]))


def _print(form: str, told: Mapping[str, Any]) -> None:
    if form == "json":
        tell_json(as_json(told))
    else:
        tell(template.compile_template(form)(told))
