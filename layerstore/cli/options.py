"""Options that several verbs share; `tables` has those of listings, `progress` that of progress bars."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from layerstore.transport.base import RegistryOptions

_Decorator = Callable[[Any], Any]

platform_option = click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Which platform's image [default: this machine's]."
)
sparse_option = click.option(
    "--sparse", is_flag=True, help="Keep the holes of files; docker and podman cannot pass such a layer on."
)
changes_option = click.option(
    "-c", "--change", "changes", metavar="INSTRUCTION", multiple=True, help="Apply a Dockerfile instruction."
)


def ignored_option(*names: str) -> _Decorator:
    """Accept a flag of docker's that has no effect here."""
    return click.option(*names, is_flag=True, hidden=True, expose_value=False)


def _refuse_trust(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value:
        raise click.BadParameter("layerstore does not verify signatures, so it cannot require them")


content_trust_option = click.option(
    "--disable-content-trust/--enable-content-trust",
    default=True,
    hidden=True,
    expose_value=False,
    callback=_refuse_trust,
)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of verbs that connect to a registry; the command gets them as one `options`."""

    def with_options(
        *args: Any, tls_verify: bool, cert_dir: str | None, authfile: str | None, **rest: Any
    ) -> Any:
        options = RegistryOptions(
            tls_verify=tls_verify,
            cert_dir=None if cert_dir is None else Path(cert_dir),
            authfile=None if authfile is None else Path(authfile),
        )
        return command(*args, options=options, **rest)

    with_options.__doc__ = command.__doc__
    with_options.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option(
            "--authfile", metavar="FILE", help="Credentials [default: docker's and podman's files]."
        ),
        click.option(
            "--cert-dir", metavar="DIR", help="Certificates [default: /etc/{containers,docker}/certs.d/HOST]."
        ),
        click.option(
            "--tls-verify",
            type=bool,
            default=True,
            metavar="BOOL",
            help="false: accept any certificate, and plain HTTP [default: true; localhost needs no TLS].",
        ),
    ):
        option(with_options)
    return with_options


def filter_option(*flags: str, keys: str) -> _Decorator:
    """Add ``--filter KEY=VALUE``, which may be repeated, as `filters`."""
    return click.option(
        *flags, "filters", metavar="KEY=VALUE", multiple=True, help=f"Only those with {keys}."
    )
