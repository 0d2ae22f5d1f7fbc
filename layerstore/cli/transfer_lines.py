"""Print what happens to the layers of a pull or a push, in docker's words; show bars on a terminal."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import click

from layerstore.cli.transfer_bars import transfer_bars
from layerstore.digest import Digest
from layerstore.reference import DEFAULT_TAG, Reference
from layerstore.transport import remote
from layerstore.transport.base import BlobReport, BlobState
from layerstore.transport.transfer import Transfer

Title = Callable[[Transfer], Iterable[str]]

DEFAULT_TAG_USED = f"Using default tag: {DEFAULT_TAG}"


class DockerWords(NamedTuple):
    """docker's words for what happens to a layer: lines to print, and words beside a bar."""

    lines: Mapping[BlobState, tuple[str, ...]]
    bars: Mapping[BlobState, str]


PULLED = DockerWords(
    {
        "waiting": ("Pulling fs layer",),
        "present": ("Already exists",),
        "retrying": ("Retrying",),
        "done": ("Verifying Checksum", "Download complete", "Pull complete"),
    },
    {"waiting": "Pulling fs layer", "moving": "Downloading", "done": "Pull complete"},
)
PUSHED = DockerWords(
    {"present": ("Layer already exists",), "retrying": ("Retrying",), "done": ("Pushed",)},
    {"waiting": "Preparing", "moving": "Pushing", "present": "Layer already exists", "done": "Pushed"},
)


class TransferLines:
    """Prints the lines, or shows the bars, of one image's layers. Thread-safe."""

    def __init__(self, words: DockerWords, title: Title, bars: BlobReport, *, quiet: bool) -> None:
        self._words = words
        self._title = title
        self._bars = bars
        self._has_lines = not quiet and not (sys.stdout.isatty() and sys.stderr.isatty())
        self._quiet = quiet
        self._transfer: Transfer | None = None
        self._last: dict[Digest, BlobState] = {}
        self._lock = threading.Lock()

    def begun(self, transfer: Transfer) -> None:
        """Print what is about to move; a `TransferBegun`."""
        self._transfer = transfer
        for line in () if self._quiet else self._title(transfer):
            click.echo(line)
        if self._words is PUSHED and self._has_lines:
            for layer in transfer.shown.values():
                click.echo(f"{layer.short}: Preparing")

    def __call__(self, digest: Digest, state: BlobState, done: int, total: int) -> None:
        """Report a blob; a `BlobReport`. Like docker, ignores blobs that are not layers."""
        transfer = self._transfer
        if transfer is None or digest not in transfer.shown:
            return
        layer = transfer.shown[digest]
        self._bars(layer, state, done, total)
        with self._lock:
            if self._has_lines and self._last.get(digest) != state:
                self._last[digest] = state
                for word in self._said(transfer, digest, state):
                    click.echo(f"{layer.short}: {word}")

    def _said(self, transfer: Transfer, digest: Digest, state: BlobState) -> tuple[str, ...]:
        if state == "mounted":
            return (f"Mounted from {transfer.elsewhere[digest]}",)
        return self._words.lines.get(state, ())


@contextmanager
def transfer_lines(words: DockerWords, title: Title, *, quiet: bool) -> Iterator[TransferLines]:
    """Yield what prints an image's layers in the words for a pull (PULLED) or a push (PUSHED)."""
    with transfer_bars(quiet=quiet, words=words.bars) as bars:
        yield TransferLines(words, title, bars, quiet=quiet)


def pull_title(transfer: Transfer) -> Iterator[str]:
    """Yield docker's first line of a pull."""
    ref, (_, path) = transfer.ref, remote.split(transfer.ref)
    yield f"{ref.tag if ref.digest is None else ref}: Pulling from {path}"


def push_title(transfer: Transfer, word: str) -> Iterator[str]:
    """Yield docker's first lines of a push of what the user calls `word`."""
    if is_default_tag(transfer.ref, word):
        yield DEFAULT_TAG_USED
    yield f"The push refers to repository [{'/'.join(remote.split(transfer.ref))}]"


def no_title(transfer: Transfer) -> Iterable[str]:
    """Return no lines, for all but the first of several images."""
    return ()


def is_default_tag(ref: Reference, word: str) -> bool:
    """Return whether the user gave a name without a tag."""
    return ref.digest is None and str(ref) == f"{word}:{DEFAULT_TAG}"
