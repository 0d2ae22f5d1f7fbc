"""What people are shown: one line that cannot act on their terminal."""

import io
import logging
import os
import sys

import pytest

from layerstore import errors as layerstore_errors
from overlayfs_py import errors
from overlayfs_py.errors import for_people, say, shown
from overlayfs_py.service import log

HOSTILE = {
    "escape": ("\x1b[31m", "\\x1b[31m"),
    "bell, DEL": ("\a\x7f", "\\x07\\x7f"),
    "C1": ("\x9b31m\x85", "\\x9b31m\\x85"),
    "newlines": ("a\nb\rc\vd\fe", "a\\nb\\rc\\x0bd\\x0ce"),
    "separators": ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
    "bidi": ("\u202e\u202a\u2066\u2069\u200e\u200f", "\\u202e\\u202a\\u2066\\u2069\\u200e\\u200f"),
    "bytes": (os.fsdecode(b"\xff\x80"), "\\xff\\x80"),
    "a lone surrogate": ("\ud800", "\\ud800"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_acts_on_a_terminal_is_escaped(name: str) -> None:
    text, expected = HOSTILE[name]
    assert for_people(text) == expected


@pytest.mark.parametrize("text", ["", "plain text", "/srv/Grüße/日本語/🦦", "back\\slash"])
def test_what_people_can_read_stays(text: str) -> None:
    assert for_people(text) == text


def test_there_is_one_such_function() -> None:
    """Both packages use it."""
    assert layerstore_errors.one_line is errors.for_people
    assert layerstore_errors.printable is errors.shown
    assert shown(b"\xff\n\x1b") == "\\xff\\n\\x1b"


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("program", "workdir /\x1b]0;title\a\n/x: in use")
    assert capsys.readouterr().err == "program: workdir /\\x1b]0;title\\x07\\n/x: in use\n"


@pytest.mark.parametrize("journal", [False, True])
def test_the_log_is_harmless(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in messages, and in the lines of a traceback."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log.log_to_stderr(debug=False, journal=journal)
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            logging.getLogger("test").exception("clearing the dead mount on %s", "/m\n\x1b[31m")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = written.getvalue().splitlines()
    assert "/m\\n\\x1b[31m" in lines[0]
    assert "\\x1b[2J" in lines[-1]
    assert written.getvalue().replace("\n", "").isprintable()
