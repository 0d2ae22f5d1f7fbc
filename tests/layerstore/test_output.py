"""What the commands print: exact for programs, harmless on a terminal."""

import json
import os
import pty
import sys

import pytest

from layerstore.cli.output import print_json, print_text
from tests.layerstore.archives import config_of, dumps, pack
from tests.layerstore.commands import Cli, tarball
from tests.layerstore.layer.tars import member, pax
from tests.layerstore.test_cli import complete

HOSTILE = "a\x1b[2J\u202eb\x9b31m\x7f\U000e0041"


def on_a_terminal(cli: Cli, *words: object) -> str:
    """What a person sees: standard output is a terminal."""
    ours, theirs = pty.openpty()
    try:
        with cli.start(*words, stdout=theirs, stdin=theirs) as process:
            os.close(theirs)
            seen = b""
            try:
                while piece := os.read(ours, 65536):
                    seen += piece
            except OSError:  # EIO: nobody has it open any more
                pass
            assert process.wait(60) == 0
    finally:
        os.close(ours)
    return seen.decode().replace("\r\n", "\n")


@pytest.fixture
def hostile(base: Cli) -> Cli:
    """An image whose author, comment and command were chosen to act on a terminal."""
    base.run("create", "--name", "work", "base:1")
    cmd = json.dumps([HOSTILE + "\nfake line"])
    base.run("commit", "-m", HOSTILE, "-a", HOSTILE, "-c", f"CMD {cmd}", "work", "bad:1")
    return base


def test_tables_are_always_harmless(hostile: Cli) -> None:
    shown = hostile.run("history", "--no-trunc", "bad:1")
    assert "a\\x1b[2J\\u202eb\\x9b31m\\x7f\\U000e0041" in shown
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize("words", [["inspect", "bad:1"], ["history", "--format", "json", "bad:1"]])
def test_json_is_exact_and_harmless(hostile: Cli, words: list[str]) -> None:
    """In a pipe and on a terminal: characters that nobody can see stand there by their numbers."""
    for printed in (hostile.run(*words), on_a_terminal(hostile, *words)):
        assert printed.replace("\n", "").isprintable()
        assert "\\u001b[2J\\u202eb\\u009b31m\\u007f\\udb40\\udc41" in printed
        found = json.loads(printed if words[0] == "inspect" else printed.splitlines()[0])
        assert (found[0] if isinstance(found, list) else found)["Comment"] == HOSTILE


@pytest.mark.parametrize("words", [["inspect", "-f"], ["history", "--format"]])
def test_templates_are_exact_but_on_a_terminal(hostile: Cli, words: list[str]) -> None:
    template = [*words, "{{.Comment}}\t|", "bad:1"]
    assert HOSTILE + "\t|" in hostile.run(*template)
    seen = on_a_terminal(hostile, *template)
    assert "a\\x1b[2J\\u202eb\\x9b31m" in seen
    assert seen.replace("\n", "").replace("\t", "").isprintable()


NAME = "x\x1b]0;title\x07\nfake: $(touch here)\u202e"
SHOWN = "x\\x1b]0;title\\x07\\nfake: $(touch here)\\u202e"


@pytest.fixture
def named(base: Cli) -> Cli:
    """A store in which another tool has given an image a name that acts on a terminal."""
    index = base.root / "oci/index.json"
    document = json.loads(index.read_text())
    document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = NAME
    index.write_text(json.dumps(document))
    return base


def test_names_of_other_tools(named: Cli) -> None:
    """Nothing acts on the terminal, nor on the shell that completes; a pipe gets what docker's would."""
    image_id = named.run("images", "-q")
    assert complete(named, "rmi", "") == []
    for words in (["images"], ["df", "-v"], ["fsck"], ["inspect", image_id], ["history", image_id]):
        seen = on_a_terminal(named, *words)
        assert seen.replace("\n", "").isprintable(), words
        assert words[0] not in {"images", "df"} or SHOWN in seen
    template = ["inspect", "-f", "{{index .RepoTags 0}}", image_id]
    assert NAME in named.run(*template)
    assert "\x1b" not in on_a_terminal(named, *template)


@pytest.mark.parametrize(("words", "says"), [(["prune", "-af"], "untagged: "), (["rmi", "-f"], "Untagged: ")])
@pytest.mark.parametrize("terminal", [True, False])
def test_names_that_are_removed(named: Cli, words: list[str], says: str, terminal: bool) -> None:
    command = [*words, named.run("images", "-q")] if words[0] == "rmi" else words
    if terminal:
        assert f"{says}{SHOWN}\n" in on_a_terminal(named, *command)
    else:
        assert f"{says}{NAME}\n" in named.run(*command) + "\n"


def test_paths_of_a_diff(base: Cli) -> None:
    """As docker's: exact in a pipe, byte for byte; a line each on a terminal."""
    name = base.run("create", "base:1")
    tar = tarball({"a\x1b[2J\nb": b"", os.fsdecode(b"c\xff"): b""})
    base.run("cp", "-", f"{name}:/", stdin=tar)
    assert base.call("diff", name).stdout == b"A /a\x1b[2J\nb\nA /c\xff\n"
    assert on_a_terminal(base, "diff", name) == "A /a\\x1b[2J\\nb\nA /c\\xff\n"
    assert base.objects("diff", name)[1] == {"Kind": "A", "Path": os.fsdecode(b"/c\xff")}


def test_a_remark_is_made_once(cli: Cli) -> None:
    """Also when several layers give rise to it: each is unpacked by itself."""
    label = pax({b"SCHILY.xattr.security.selinux": b"system_u:object_r:etc_t:s0"})
    layers = {f"{number}.tar": label + member(b"f%d" % number) + bytes(1024) for number in range(3)}
    item = {"Config": "config.json", "RepoTags": ["many:1"], "Layers": [*layers]}
    files = {**layers, "config.json": config_of(*layers.values()), "manifest.json": dumps([item])}
    cli.run("load", stdin=pack(files))
    done = cli.call("export", "-o", cli.root.parent / "out.tar", "many:1")
    assert done.stderr.splitlines() == [
        b"layerstore: left out the xattr security.selinux: it belongs to the machine, not to the file"
    ]


def test_printing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    print_text("a\x1bb\tc")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_text("a\x1bb\tc\nd")
    print_json('{\n "a": "\x7f\u2028"}')
    assert capsys.readouterr().out == 'a\x1bb\tc\na\\x1bb\tc\nd\n{\n "a": "\\u007f\\u2028"}\n'
