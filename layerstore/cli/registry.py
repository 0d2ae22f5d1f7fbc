"""The verbs that speak to registries: pull, push, login, logout."""

import sys
from dataclasses import replace
from pathlib import Path

import click

import layerstore
from layerstore import reference
from layerstore.cli import completion
from layerstore.cli.group import Root, examples, note
from layerstore.cli.options import connection_options, content_trust_option, platform_option
from layerstore.cli.transfers import transfers
from layerstore.errors import LayerstoreError, OtherPlatforms, UnsupportedMedia
from layerstore.transport.base import RegistryOptions

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
@click.option("-q", "--quiet", is_flag=True, help="Print the full name only, and no progress.")
@content_trust_option
@click.argument("ref", shell_complete=completion.images)
@click.pass_obj
@connection_options
def pull_command(
    root: Root,
    ref: str,
    all_tags: bool,
    platform: str | None,
    all_platforms: bool,
    quiet: bool,
    options: RegistryOptions,
) -> None:
    """Get an image from a registry; an interrupted pull goes on where it was.

    Of an image for several platforms the index is kept; with --platform the one image is taken without it.
    """
    if platform is not None and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    if not all_tags and not quiet:
        _tell_default_tag(ref)
    left_out = False
    pulled = None
    for one in layerstore.remote_tags(ref, options=options, note=note) if all_tags else [ref]:
        try:
            with transfers(quiet=quiet) as report:
                pulled = layerstore.pull(
                    one,
                    platform=platform,
                    all_platforms=all_platforms,
                    options=options,
                    root=root.path,
                    report=report,
                    note=note,
                )
        except (UnsupportedMedia, OtherPlatforms) as error:
            if not all_tags:
                raise
            left_out = True
            note(f"{one} is left out: {error}")
            continue
        if not quiet:
            click.echo(f"Digest: {pulled.digest}")
            state = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
            click.echo(f"Status: {state} {one}")
        click.echo(pulled.reference)
    if left_out and pulled is None:
        raise LayerstoreError(f"{ref} has no image that can be used here")


def _tell_default_tag(word: str) -> None:
    """docker's remark, on a name without a tag."""
    ref = reference.parse(word)
    if ref.digest is None and str(ref) == f"{word}:{reference.DEFAULT_TAG}":
        click.echo(f"Using default tag: {reference.DEFAULT_TAG}")


@click.command(
    "push",
    epilog=examples(
        "layerstore push registry.example.org/base:1",
        "layerstore push base:1 localhost:5000/team/base:1",
        "layerstore push -a localhost:5000/team/base",
    ),
)
@click.option("-a", "--all-tags", is_flag=True, help="Bring all images of the repository there.")
@platform_option
@click.option("-q", "--quiet", is_flag=True, help="Print the digest only, and no progress.")
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
    root: Root,
    image: str,
    ref: str | None,
    all_tags: bool,
    platform: str | None,
    quiet: bool,
    chunk_size: int,
    options: RegistryOptions,
) -> None:
    """Bring an image to a registry, under REF or else its own name; what is there already is not sent."""
    if all_tags and ref is not None:
        raise click.UsageError("--all-tags brings images under their own names: without REF")
    how = replace(options, chunk_size=chunk_size)
    for one in layerstore.local_tags(image, root=root.path) if all_tags else [image]:
        with transfers(quiet=quiet) as report:
            pushed = layerstore.push(
                one, ref, platform=platform, options=how, root=root.path, report=report, note=note
            )
        click.echo(pushed.digest if quiet else f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}")


@click.command(
    "login",
    epilog=examples(
        "layerstore login registry.example.org",
        "pass show registry | layerstore login -u me --password-stdin registry.example.org",
    ),
)
@click.option("-u", "--username", metavar="U", help="The user name; asked for when absent.")
@click.option("-p", "--password", metavar="PASSWORD", help="Others can see it: rather use --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("host", required=False, default="docker.io")
@connection_options
def login_command(
    host: str, username: str | None, password: str | None, password_stdin: bool, options: RegistryOptions
) -> None:
    """Check a user name and password with a registry and keep them where docker and podman look."""
    if password is not None and password_stdin:
        raise click.UsageError("--password and --password-stdin exclude each other")
    if username is None and (password_stdin or not sys.stdin.isatty()):
        raise click.UsageError("no user name: give it with -u")
    name = username if username is not None else click.prompt("Username", err=True)
    if password_stdin:
        secret = _from_stdin()
    elif password is not None:
        secret = password
    elif sys.stdin.isatty():
        secret = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError("standard input is no terminal: use --password-stdin")
    helper = layerstore.login(host, name, secret, options=options)
    if helper is None:
        note("the password is kept unencrypted in a file: a credential helper would keep it safer")
    click.echo("Login Succeeded")


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
    """Forget the credentials for a registry."""
    options = RegistryOptions(authfile=None if authfile is None else Path(authfile))
    if layerstore.logout(host, options=options):
        click.echo(f"Removing login credentials for {host}")
    else:
        click.echo(f"Not logged in to {host}")
