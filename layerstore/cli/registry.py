"""The verbs that connect to registries: pull, push, login, logout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import layerstore
from layerstore import reference
from layerstore.cli import completion
from layerstore.cli.group import StoreOption, examples
from layerstore.cli.options import connection_options, content_trust_option, platform_option
from layerstore.cli.remarks import note
from layerstore.cli.transfer_lines import (
    DEFAULT_TAG_USED,
    PULLED,
    PUSHED,
    Title,
    is_default_tag,
    no_title,
    pull_title,
    push_title,
    transfer_lines,
)
from layerstore.errors import LayerstoreError, OtherPlatforms, UnsupportedMedia
from layerstore.transport.base import RegistryOptions
from overlayfs_py.errors import mention

if TYPE_CHECKING:
    from layerstore.transport.pull import Pulled

_SECRET_LIMIT = 1 << 20


@click.command(
    "pull",
    epilog=examples(
        "layerstore pull debian:12",
        "layerstore pull --platform linux/arm64 registry.example.org/base:1",
        "layerstore pull localhost:5000/base@sha256:4f9ee6c0d7a1...",
        "layerstore pull -a localhost:5000/base",
    ),
)
@click.option("-a", "--all-tags", is_flag=True, help="Get all images of the repository.")
@platform_option
@click.option("--all-platforms", is_flag=True, help="Get the images for all platforms.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the full name, without progress.")
@content_trust_option
@click.argument("ref", shell_complete=completion.images)
@click.pass_obj
@connection_options
def pull_command(
    root: StoreOption,
    ref: str,
    all_tags: bool,
    platform: str | None,
    all_platforms: bool,
    quiet: bool,
    options: RegistryOptions,
) -> None:
    """Get an image from a registry; an interrupted pull resumes where it stopped.

    Of an image for several platforms the index is kept; --platform gets that one image without its index.
    """
    if platform is not None and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    if not all_tags and not quiet and is_default_tag(reference.parse(ref), ref):
        click.echo(DEFAULT_TAG_USED)
    get = partial(
        layerstore.pull,
        platform=platform,
        all_platforms=all_platforms,
        options=options,
        root=root.path,
        note=note,
    )
    pulled: list[Pulled] = []
    left_out = False
    for one in layerstore.remote_tags(ref, options=options, note=note) if all_tags else [ref]:
        try:
            with transfer_lines(PULLED, pull_title, quiet=quiet) as lines:
                got = get(one, report=lines, begun=lines.begun)
        except (UnsupportedMedia, OtherPlatforms) as error:
            if not all_tags:
                raise
            left_out = True
            note(f"{one} is left out: {error}")
            continue
        pulled.append(got)
        click.echo(got.reference if quiet else f"Digest: {got.digest}")
    if left_out and not pulled:
        raise LayerstoreError(f"no image of {ref} is usable on this machine")
    if not quiet and pulled:
        _print_status(reference.parse(ref), pulled, all_tags=all_tags)


def _print_status(ref: reference.Reference, pulled: Sequence[Pulled], *, all_tags: bool) -> None:
    """Print docker's last lines, once for all tags together."""
    state = "Downloaded newer image for" if any(one.is_new for one in pulled) else "Image is up to date for"
    click.echo(f"Status: {state} {ref.repository if all_tags else ref}")
    click.echo(ref.full_repository if all_tags else pulled[-1].reference)


@click.command(
    "push",
    epilog=examples(
        "layerstore push registry.example.org/base:1",
        "layerstore push base:1 localhost:5000/team/base:1",
        "layerstore push -a localhost:5000/team/base",
    ),
)
@click.option("-a", "--all-tags", is_flag=True, help="Push all images of the repository.")
@platform_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest, without progress.")
@click.option(
    "--chunk-size",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="Send blobs in pieces of this size [default: whole].",
)
@content_trust_option
@click.argument("image", shell_complete=completion.images)
@click.argument("ref", required=False)
@click.pass_obj
@connection_options
def push_command(
    root: StoreOption,
    image: str,
    ref: str | None,
    all_tags: bool,
    platform: str | None,
    quiet: bool,
    chunk_size: int,
    options: RegistryOptions,
) -> None:
    """Push an image to a registry; under REF or else its own name, and without blobs that it has already."""
    if all_tags and ref is not None:
        raise click.UsageError("--all-tags pushes images under their own names: omit REF")
    how = replace(options, chunk_size=chunk_size)
    title: Title = partial(push_title, word=ref or image)
    for one in layerstore.local_tags(image, root=root.path, note=note) if all_tags else [image]:
        with transfer_lines(PUSHED, title, quiet=quiet) as lines:
            pushed = layerstore.push(
                one,
                ref,
                platform=platform,
                options=how,
                root=root.path,
                report=lines,
                begun=lines.begun,
                note=note,
            )
        title = no_title  # docker says it once
        click.echo(pushed.digest if quiet else f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}")


@click.command(
    "login",
    epilog=examples(
        "layerstore login registry.example.org",
        "pass show registry | layerstore login -u me --password-stdin registry.example.org",
    ),
)
@click.option("-u", "--username", metavar="U", help="The user name [default: ask].")
@click.option("-p", "--password", metavar="PASSWORD", help="Visible to other users: prefer --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("host", required=False, default="docker.io")
@connection_options
def login_command(
    host: str, username: str | None, password: str | None, password_stdin: bool, options: RegistryOptions
) -> None:
    """Log in to a registry: check a user name and password, and store them where docker and podman look.

    Without any, checks those that are stored already.
    """
    if password is not None and password_stdin:
        raise click.UsageError("--password and --password-stdin exclude each other")
    if password is not None:
        mention("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if username is not None or password is not None or password_stdin or not _log_in_again(host, options):
        name, secret = _asked(username, password, password_stdin=password_stdin)
        _log_in(host, name, secret, options)


def _log_in(host: str, name: str, secret: str, options: RegistryOptions) -> None:
    if layerstore.login(host, name, secret, options=options) is None:
        note("the password is stored unencrypted in a file; a credential helper stores it more safely")
    click.echo("Login Succeeded")


def _log_in_again(host: str, options: RegistryOptions) -> bool:
    """Log in with stored credentials; returns whether that worked. Without a terminal a failure raises."""
    kept = layerstore.kept_login(host, options=options)
    if kept is None:
        return False
    click.echo("Authenticating with existing credentials...")
    try:
        _log_in(host, kept.username, kept.password, options)
    except LayerstoreError as error:
        if not sys.stdin.isatty():
            raise
        mention(f"Login did not succeed, error: {error}")
        return False
    return True


def _asked(username: str | None, password: str | None, *, password_stdin: bool) -> tuple[str, str]:
    """Return name and password: given, from standard input, or asked for on a terminal."""
    if username is None and (password_stdin or not sys.stdin.isatty()):
        raise click.UsageError("no user name: give it with -u")
    name = username if username is not None else click.prompt("Username", err=True)
    if password_stdin:
        return name, _from_stdin()
    if password is not None:
        return name, password
    if not sys.stdin.isatty():
        raise click.UsageError("standard input is not a terminal: use --password-stdin")
    return name, click.prompt("Password", hide_input=True, err=True)


def _from_stdin() -> str:
    raw = sys.stdin.buffer.read(_SECRET_LIMIT + 1)
    try:
        secret = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise LayerstoreError("the password on standard input is not UTF-8 text") from None
    if not secret or len(raw) > _SECRET_LIMIT:
        raise LayerstoreError("there is no password on standard input")
    return secret


@click.command("logout", epilog=examples("layerstore logout registry.example.org"))
@click.option("--authfile", metavar="FILE", help="Credentials [default: docker's and podman's files].")
@click.argument("host", required=False, default="docker.io")
def logout_command(host: str, authfile: str | None) -> None:
    """Remove the stored credentials for a registry."""
    options = RegistryOptions(authfile=None if authfile is None else Path(authfile))
    if layerstore.logout(host, options=options):
        click.echo(f"Removing login credentials for {host}")
    else:
        click.echo(f"Not logged in to {host}")
