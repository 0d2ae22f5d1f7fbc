"""A progress bar on a terminal, nothing anywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress bar.")


class ProgressBar(Protocol):
    """Told the number of bytes done so far and, by who knows it, how many there are in all."""

    def __call__(self, done: int, total: int | None = None, /) -> None: ...


@contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[ProgressBar | None]:
    """Yields the function to report to, or None when nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    # rich takes longer to import than most verbs take to run.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(what, total=total)

        def report(done: int, total: int | None = None, /) -> None:
            bar.update(task, completed=done, total=total)

        yield report
