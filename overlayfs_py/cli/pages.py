"""``python -m overlayfs_py.cli.pages DIR``: write manual pages and shell completions below a share directory.

All texts come from the commands' own parsers and the option table, so they cannot differ from the code.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from overlayfs_py.cli import ctl as control
from overlayfs_py.cli import mount as mounting
from overlayfs_py.cli.completion import script
from overlayfs_py.options.manual import effect, form
from overlayfs_py.options.table import GROUPS, Kind
from overlayfs_py.share import COMPLETIONS, roff, write

_PROGRAMS = ("overlayfs-py", "overlayfs-pyctl")


def completions() -> dict[str, str]:
    """Return the completion script of each program for each shell, by path."""
    return {
        place.format(program): script(program, shell)
        for shell, place in COMPLETIONS.items()
        for program in _PROGRAMS
    }


def manual() -> dict[str, str]:
    """Return the manual page of each program, by path."""
    pages = zip(_PROGRAMS, (_mount_page(), _control_page()), strict=True)
    return {f"man/man1/{program}.1": "\n".join(lines) + "\n" for program, lines in pages}


def _mount_page() -> Iterator[str]:
    yield from _head("overlayfs-py", "mount a stack of directories as one overlay", [mounting.USAGE])
    yield from (
        ".SH DESCRIPTION",
        roff(mounting.DESCRIPTION),
        ".SH OPTIONS",
        *_options(mounting.make_parser()),
    )
    for title, rows in GROUPS.items():
        yield f'.SH "MOUNT OPTIONS: {title.upper()}"'
        for row in rows:
            text = row.meaning if row.kind is not Kind.REFUSED else f"{effect(row)}: {row.meaning}"
            yield from (".TP", f".B {roff(form(row))}", roff(text))
    yield from _examples(mounting.EXAMPLES)
    yield from (
        ".SH SEE ALSO",
        r".BR overlayfs\-pyctl (1), .BR mount (8), .BR fuse (4)".replace(", .BR", ",\n.BR"),
    )


def _control_page() -> Iterator[str]:
    parser = control.make_parser()
    yield from _head(
        "overlayfs-pyctl", "query and control the daemons of mounted overlays", [parser.usage or ""]
    )
    yield from (".SH DESCRIPTION", roff(parser.description or ""), ".SH OPTIONS", *_options(parser))
    yield ".SH VERBS"
    for verb, below in verbs(parser).items():
        yield from (f'.SS "{roff(verb)}"', f".B {roff(_usage(below))}")
        yield from (".PP", roff(below.description or ""), *_options(below))
    yield from _examples("\n".join(control.EXAMPLES.values()))
    yield from (".SH EXIT STATUS", roff(control.EXIT_STATUS), ".SH SEE ALSO", r".BR overlayfs\-py (1)")


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the verbs of `overlayfs-pyctl`, each with its parser."""
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: below for action in found for name, below in action.choices.items()}


def _usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage:").split())


def _head(program: str, says: str, usages: Iterable[str]) -> Iterator[str]:
    yield f'.TH "{program.upper()}" 1 "" "overlayfs-py" "User Commands"'
    yield from (".SH NAME", f"{roff(program)} \\- {says}", ".SH SYNOPSIS", *map(roff, usages))


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for words, text in mounting.options_of(parser):
        yield from (".TP", f".B {roff(words)}", roff(text))


def _examples(text: str) -> Iterator[str]:
    yield from (".SH EXAMPLES", ".nf", *(roff(line) for line in text.rstrip().split("\n")), ".fi")


if __name__ == "__main__":
    write(Path(sys.argv[1]), {**completions(), **manual()})
