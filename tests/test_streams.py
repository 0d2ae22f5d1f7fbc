"""Programs that are started without some of the standard streams, as cron and careless scripts do."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from overlayfs_py import streams
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.mounts import COMMAND, Layers

CONTROL = COMMAND.with_name("overlayfs-pyctl")
CLOSED = ["0", "1", "2", "12", "012"]


def start(closed: str, *words: object, **options: object) -> "subprocess.CompletedProcess[bytes]":
    """Run a command with these descriptors closed."""
    redirections = " ".join(f"{fd}<&-" for fd in closed)
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        ["sh", "-c", f'exec "$0" "$@" {redirections}', *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        **options,
    )


@pytest.fixture
def store(where: Path) -> Iterator[Cli]:
    cli = Cli(where / "store")
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    cli.run("create", "--name", "work", "base:1")
    yield cli
    cli.call("umount", "-f", "work")


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED)
def test_verbs_of_layerstore(store: Cli, where: Path, closed: str) -> None:
    """All do what they do; nothing they would have printed lands in a file they open."""
    archive = where / "base.tar"
    for words in (
        ["images"], ["ps"], ["history", "base:1"], ["inspect", "base:1", "work"], ["df", "-v"],
        ["save", "-o", archive, "base:1"], ["load", "-i", archive], ["mount", "work"],
        ["cp", archive, "work:/etc"], ["diff", "work"], ["commit", "work", "next:1"], ["umount", "work"],
        ["export", "-o", where / "all.tar", "next:1"], ["import", where / "all.tar", "flat:1"],
        ["tag", "flat:1", "flat:2"], ["rmi", "flat:2"], ["prune", "-f"], ["fsck"], ["--help"],
    ):  # fmt: skip
        done = start(closed, *store.command(*words))
        assert (done.returncode, b"Error" in done.stderr) == (0, False), (words, done.stderr)
    assert store.run("fsck").endswith("no problems")
    assert subprocess.run(["tar", "-tf", archive], capture_output=True, timeout=60).returncode == 0
    done = start(closed, *store.command("nonsense"))
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize("words", [["save", "base:1"], ["export", "work"], ["cp", "work:/etc", "-"]])
def test_an_archive_that_would_go_nowhere(store: Cli, words: Sequence[str]) -> None:
    done = start("1", *store.command(*words))
    assert done.returncode == 2
    assert done.stderr.startswith(b"layerstore: standard output is closed: ")


@pytest.mark.parametrize("words", [["load"], ["import", "-"], ["cp", "-", "work:/etc"]])
def test_an_archive_that_comes_from_nowhere(store: Cli, words: Sequence[str]) -> None:
    done = start("0", *store.command(*words))
    assert done.returncode == 2
    assert done.stderr.startswith(b"layerstore: standard input is closed: ")


@pytest.mark.fuse
@pytest.mark.parametrize("closed", CLOSED)
def test_mounting_and_steering(layers: Layers, closed: str) -> None:
    mountpoint = layers.merged
    done = start(closed, COMMAND, "-o", layers.options(), mountpoint)
    assert (done.returncode, done.stderr) == (0, b"")
    try:
        (mountpoint / "new").write_text("x")
        for words in (["list"], ["list", "--json"], ["status"], ["stats", "--prometheus"], ["sync"]):
            place = [] if words[0] == "list" else [mountpoint]
            done = start(closed, CONTROL, *words, *place)
            assert (done.returncode, done.stderr) == (0, b""), words
        assert start(closed, CONTROL, "freeze", mountpoint, "--", "true").returncode == 0
    finally:
        done = start(closed, CONTROL, "umount", mountpoint)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (layers.upper / "new").read_text() == "x"
    assert start(closed, COMMAND, "-o", "nonsense", mountpoint).returncode == 1
    assert start(closed, CONTROL, "nonsense").returncode == 2


def test_nobody_can_read_what_is_said(store: Cli) -> None:
    """A full disk behind stderr, or a reader that went: what was asked for is done all the same."""
    store.run("mount", "work")
    ours, theirs = os.pipe()
    os.close(ours)
    with open("/dev/full", "wb") as full:
        for stderr in (full.fileno(), theirs):
            done = subprocess.run(
                store.command("commit", "work", f"next:{stderr}"), stdout=-3, stderr=stderr, timeout=60
            )
            assert done.returncode == 0
    os.close(theirs)


def test_text_that_a_stream_cannot_say() -> None:
    """Bytes that are not UTF-8 go out as they came; what the locale cannot write is escaped."""
    said = "import sys; sys.stdin.readline(); print('\\udcff\\u2026é'); print('\\ud800', file=sys.stderr)"
    program = f"from overlayfs_py import streams; streams.prepare(); {said}"
    for encoding, shown in (
        ("latin-1", b"\xff\\u2026\xe9\n"),
        ("ascii", b"\xff\xe2\x80\xa6\xc3\xa9\n"),
        ("utf-8", b"\xff\xe2\x80\xa6\xc3\xa9\n"),
    ):
        done = subprocess.run(
            [COMMAND.with_name("python"), "-c", program],
            input=b"y\xff\n",
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"\\ud800\n")
    assert not streams.was_closed(1)
