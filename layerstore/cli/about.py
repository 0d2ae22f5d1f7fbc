"""The verbs on the program and its store as a whole: info, version."""

from collections.abc import Mapping
from typing import Any

import click

import layerstore
from layerstore.cli import template
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.output import as_json, print_json, print_text
from layerstore.image import human

_format_option = click.option(
    "-f", "--format", "form", metavar="FORMAT", help="json, or a template: '{{.Driver}}'."
)


@click.command("info", epilog=examples("layerstore info", "layerstore info --format '{{.DockerRootDir}}'"))
@_format_option
@click.pass_obj
def info_command(root: StoreOption, form: str | None) -> None:
    """Show what the store holds, and the machine it is on."""
    found = layerstore.info(root=root.path)
    if form is not None:
        _print(form, found)
        return
    print_text(f"Client:\n Version:    {found['ServerVersion']}\n\nServer:")
    print_text(f" Containers: {found['Containers']}")
    for key in ("Running", "Paused", "Stopped"):
        print_text(f"  {key}: {found[f'Containers{key}']}")
    print_text(f" Images: {found['Images']}")
    for title, key in _LINES.items():
        print_text(f" {title}: {human.binary_size(found[key]) if key == 'MemTotal' else found[key]}")


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
    found = layerstore.version()
    if form is not None:
        _print(form, found)
        return
    one = found["Client"]
    rows = {
        "Version": one["Version"],
        "Python version": one["PythonVersion"],
        "Kernel version": one["KernelVersion"],
        "OS/Arch": f"{one['Os']}/{one['Arch']}",
    }
    print_text("\n".join(["Client:", *(f" {title + ':':<18} {value}" for title, value in rows.items())]))


def _print(form: str, found: Mapping[str, Any]) -> None:
    if form == "json":
        print_json(as_json(found))
    else:
        print_text(template.compile_template(form)(found))
