"""What the commands print: exact for programs, harmless on a terminal."""

import json
import os
import pty
import sys

import pytest

from layerstore.cli.output import tell, tell_json
from tests.layerstore.commands import Cli

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


def test_printing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tell("a\x1bb\tc")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tell("a\x1bb\tc\nd")
    tell_json('{\n "a": "\x7f\u2028"}')
    assert capsys.readouterr().out == 'a\x1bb\tc\na\\x1bb\tc\nd\n{\n "a": "\\u007f\\u2028"}\n'
