"""Every limit has a name, is in the help text, and is enforced where it is set: by option or environment."""

import io
import os
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from layerstore import limits
from layerstore.errors import LayerstoreError
from layerstore.limits import DEFAULT_LIMITS, GIB, KIB, Limits
from tests.layerstore.archives import layout, pack
from tests.layerstore.commands import ROOTFS, Cli, tarball
from tests.layerstore.layer.tars import END, member, padded, pax

SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}


def two_files() -> bytes:
    return member(b"a", b"x" * 5000) + member(b"bcd") + END


def zstd_of_zeros() -> bytes:
    return zstandard.ZstdCompressor().compress(member(b"a", bytes(1 << 20)) + END)


def zstd_of_noise() -> bytes:
    return zstandard.ZstdCompressor().compress(member(b"a", os.urandom(1 << 20)) + END)


# Limit -> the verb, its input, what the refusal says; the limit given is N.
MET: dict[str, tuple[int, tuple[str, ...], Callable[[], bytes], str]] = {
    "bytes": (1000, ("import", "-"), two_files, "larger than 1000 bytes"),
    "ratio": (2, ("--limit", "ratio-floor=1K", "import", "-"), zstd_of_zeros, "expands more than 2 times"),
    "ratio-floor": (
        1000,
        ("--limit", "ratio=2", "import", "-"),
        zstd_of_zeros,
        "expands more than 2 times",
    ),
    "entries": (1, ("import", "-"), two_files, "more than 1 entries"),
    "name": (2, ("import", "-"), two_files, "a name of 3 bytes"),
    "pax": (10, ("import", "-"), lambda: pax({b"comment": b"x" * 20}) + two_files(), "extended header of"),
    "global-pax": (
        10,
        ("import", "-"),
        lambda: pax({b"comment": b"x" * 20}, kind=b"g") + two_files(),
        "global PAX records of more than 10 bytes",
    ),
    "file-size": (4999, ("import", "-"), two_files, "a: a file of 5000 bytes"),
    "sparse-extents": (
        1,
        ("import", "-"),
        lambda: pax(SPARSE) + member(b"f", padded(b"2\n0\n1\n2\n1\n") + b"xy") + END,
        "more than 1 extents",
    ),
    "window": (64 * KIB, ("import", "-"), zstd_of_noise, "more than 65536 bytes of memory"),
    "document": (100, ("load",), lambda: pack(layout()), "larger than 100 bytes"),
    "index": (10, ("images",), bytes, "larger than 10 bytes"),
    "depth": (2, ("load",), lambda: pack(layout()), "nested deeper than 2 levels"),
    "layers": (0, ("load",), lambda: pack(layout()), "lists 1 layers, more than 0"),
    "members": (2, ("load",), lambda: pack(layout()), "the archive has more than 2 entries"),
}


def test_the_table_has_every_limit() -> None:
    assert set(MET) == set(limits.names())


@pytest.mark.parametrize("name", MET)
def test_by_option(cli: Cli, name: str) -> None:
    """Refused, and the message says which limit it was."""
    number, words, make, message = MET[name]
    cli.make_store()
    refusal = cli.fail("--limit", f"{name}={number}", *words, stdin=make())
    assert message in refusal
    if name not in {"name", "ratio-floor"}:  # a longer name is no machine's; the floor is the ratio's
        assert f"--limit {name}=N allows more" in refusal


@pytest.mark.parametrize("name", MET)
def test_by_environment(cli: Cli, name: str) -> None:
    number, words, make, message = MET[name]
    cli.make_store()
    given = ",".join([f"{name}={number}", *(word for word in words if "=" in word)])
    verb = [word for word in words if "=" not in word and word != "--limit"]
    assert message in cli.fail(*verb, stdin=make(), env={"LAYERSTORE_LIMITS": given})


def test_within_the_limits(cli: Cli) -> None:
    """The same inputs are taken when nothing is said."""
    for _, words, make, _ in MET.values():
        cli.run(*[word for word in words if "=" not in word and word != "--limit"], stdin=make())


def test_an_option_beats_the_environment(cli: Cli) -> None:
    few = {"LAYERSTORE_LIMITS": "entries=1,bytes=1G"}
    cli.run("--limit", "entries=1K", "import", "-", stdin=tarball(ROOTFS), env=few)


@pytest.mark.parametrize("word", ["entry=5", "bytes", "bytes=", "bytes=-1", "bytes=1.5G", "bytes=1k", "=3"])
def test_words_that_are_no_limits(cli: Cli, word: str) -> None:
    assert "limit" in cli.fail("--limit", word, "images")
    assert "limit" in cli.fail("images", env={"LAYERSTORE_LIMITS": word})


def test_the_help_text_names_them(cli: Cli) -> None:
    text = " ".join(cli.run("--help").split())
    for name, value in limits.names().items():
        assert f"{name} {value}" in text


def test_parse() -> None:
    assert limits.parse([]) == DEFAULT_LIMITS == Limits()
    assert limits.parse(["bytes=2G", " entries=3 ", ""]) == Limits(max_bytes=2 * GIB, max_entries=3)
    with pytest.raises(LayerstoreError, match="the limits are bytes, ratio"):
        limits.parse(["x=1"])


def test_a_limit_holds_for_a_mount(base: Cli) -> None:
    """Layers that came unpacked with nobody looking, as by pull, are unpacked under the same limits."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(20):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    base.run("load", stdin=pack(layout(layer=out.getvalue())))
    assert "more than 5 entries" in base.fail("--limit", "entries=5", "create", "oci:1")
