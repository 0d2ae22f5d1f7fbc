"""The program around the verbs: its own options, and how it reports errors."""

import gc
import os
import sys
from typing import NoReturn

import click

from layerstore import environment, limits
from layerstore.cli import interrupts
from layerstore.cli.group import StoreOption, VerbGroup, examples
from layerstore.cli.remarks import complain
from layerstore.errors import LayerstoreError, explain
from overlayfs_py.errors import OverlayError


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "layerstore import rootfs.tar.gz base && layerstore create --name work base",
        "cd $(layerstore mount work)",
        "layerstore diff work && layerstore commit -m 'what I did' work base:changed",
        'eval "$(_LAYERSTORE_COMPLETE=bash_source layerstore)"    # completion; also zsh_source, fish_source',
    ),
)
@click.option(
    "--root", metavar="DIR", help="The store [default: $LAYERSTORE_ROOT, or the system's or user's own]."
)
@click.option("--shared", is_flag=True, help="Let every user read the store's images (oci/) from now on.")
@click.option(
    "--limit",
    "changes",
    multiple=True,
    metavar="NAME=N",
    help="Change a limit on what input may need, for large input from a trusted source: entries=50M; "
    "may be repeated [default: $LAYERSTORE_LIMITS, NAME=N,..., or "
    + ", ".join(f"{name} {value}" for name, value in limits.names().items())
    + "].",
)
@click.version_option(None, "-v", "--version", package_name="overlayfs-py", prog_name="layerstore")
@click.pass_context
def layerstore(context: click.Context, root: str | None, shared: bool, changes: tuple[str, ...]) -> None:
    """Images on a plain OCI image layout: import, mount, change, diff, commit.

    IMAGE is a reference (REPOSITORY[:TAG]), an image ID or a unique prefix of one.
    """
    context.obj = StoreOption(root)
    limits.set_current(limits.parse(changes, limits.current()))  # reports errors in both sources
    if shared:
        from layerstore.store.opening import open_store  # not for every start

        open_store(root, make=True).share()


def run() -> NoReturn:
    """Run the program and exit. `layerstore.cli.main` calls it once signal handlers are installed."""
    try:
        status = layerstore.main(prog_name="layerstore", standalone_mode=False)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.UsageError as error:
        status = _complain_of_words(error)
    except (KeyboardInterrupt, click.Abort):
        status = 130
    except BrokenPipeError:
        _forget_stdout()
        status = 1
    except (LayerstoreError, OverlayError) as error:
        status = complain(str(error))
    except OSError as error:
        status = complain(explain(error))
    except MemoryError:
        status = complain("out of memory")
    except Exception as error:
        if environment.is_debugging():
            raise
        status = complain(f"internal error: {type(error).__name__}: {error} (LAYERSTORE_DEBUG=1 shows where)")
    interrupts.ignore()
    gc.freeze()  # saves a last search of all modules for garbage, a tenth of a short verb's time
    sys.exit(status if isinstance(status, int) else 0)


def _complain_of_words(error: click.UsageError) -> int:
    """Report a wrong command line; returns the exit status."""
    words = "layerstore" if error.ctx is None else error.ctx.command_path
    return complain(f"{error.format_message().rstrip('.')}; see {words} --help", error.exit_code)


def _forget_stdout() -> None:
    """Stop Python from reporting at exit that the reader of our output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
