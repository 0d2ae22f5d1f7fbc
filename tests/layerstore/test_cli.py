"""What every verb has in common: help, one line for an error, terminals and pipes."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from layerstore.cli import program
from layerstore.cli.verbs import ALIASES, GROUPS, VERBS
from tests.layerstore.commands import PROGRAM, Cli, tarball

SPELLED = [
    f"{group} {name}"
    for group, one in GROUPS.items()
    for verb, spelling in one.spellings.items()
    for name in (verb, *spelling.aliases)
]


@pytest.mark.parametrize("words", [*VERBS, *ALIASES, *SPELLED])
def test_help_has_examples(words: str) -> None:
    """Under every name, and with that name in the examples."""
    found = CliRunner().invoke(program.layerstore, [*words.split(), "--help"], prog_name="layerstore")
    assert found.exit_code == 0
    assert found.output.startswith(f"Usage: layerstore {words} ")
    assert f"layerstore {words}" in found.output.split("Examples:")[1]
    if len(words.split()) > 1 and "inspect" not in words and "prune" not in words:
        assert f"layerstore {words}" in found.output.partition("Aliases:")[2].split("\n\n")[0]
    wrong = CliRunner().invoke(
        program.layerstore,
        [*words.split(), "--no-such-option"],
        prog_name="layerstore",
        standalone_mode=False,
    )
    assert isinstance(wrong.exception, click.UsageError)


def test_general(cli: Cli) -> None:
    assert "commit" in cli.run("--help")
    assert cli.run("--version").startswith("layerstore, version ")
    help_text = cli.run("--help")
    assert "..." not in help_text.split("Commands:")[1].split("Examples:")[0]
    done = subprocess.run([PROGRAM], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout.decode().strip()) == (0, help_text)
    assert cli.run("help") == help_text


def test_a_wrong_command_line_is_one_line(cli: Cli) -> None:
    assert cli.fail("build", status=2) == "No such command 'build'; see layerstore --help"
    assert cli.fail("save", status=2) == "Missing argument 'IMAGE...'; see layerstore save --help"
    assert cli.fail("prune", "-a", status=2).endswith("use -f; see layerstore prune --help")


def test_completion(cli: Cli) -> None:
    env = {"_LAYERSTORE_COMPLETE": "bash_complete", "COMP_WORDS": "layerstore com", "COMP_CWORD": "1"}
    done = subprocess.run([PROGRAM], env={**os.environ, **env}, capture_output=True, timeout=30, check=True)
    assert done.stdout == b"plain,commit\n"


def complete(cli: Cli, *words: str) -> list[str]:
    """What a shell would offer for the last of these words."""
    env = {
        "_LAYERSTORE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["layerstore", "--root", str(cli.root), *words]),
        "COMP_CWORD": str(len(words) + 2),
    }
    done = subprocess.run([PROGRAM], env={**os.environ, **env}, capture_output=True, timeout=30, check=True)
    return done.stdout.decode().split()


def test_completion_of_names(base: Cli) -> None:
    base.run("tag", "base:1", "other:2")
    base.run("create", "--name", "work", "base:1")
    assert complete(base, "rmi", "bas") == ["plain,base:1"]  # image IDs are hexadecimal, no s
    assert complete(base, "rm", "w") == ["plain,work"]
    assert complete(base, "inspect", "") == ["plain,work", "plain,base:1", "plain,other:2"]
    assert complete(base, "cp", "wo") == ["plain,work:", "file,wo"]
    assert complete(Cli(base.root / "oci/oci-layout/no"), "rmi", "") == []


def test_manual_pages_and_completions(tmp_path: Path) -> None:
    """Made for every verb, with its options and examples; man shows them without a warning."""
    made = subprocess.run(
        [sys.executable, "-m", "layerstore.cli.pages", tmp_path], capture_output=True, timeout=60, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    for words in [*VERBS, *GROUPS, "image ls", "container prune", "system df"]:
        page = tmp_path / f"man/man1/layerstore-{words.replace(' ', '-')}.1"
        text = page.read_text()
        assert f".B layerstore {words}" in text
        assert "\n.SH EXAMPLES\n" in text
        assert "\\-\\-help" in text
    program = (tmp_path / "man/man1/layerstore.1").read_text()
    assert all(f"layerstore\\-{verb}" in program for verb in VERBS)
    for shell in ("bash-completion/completions/layerstore", "zsh/site-functions/_layerstore"):
        assert "_LAYERSTORE_COMPLETE=" in (tmp_path / shell).read_text()
    if shutil.which("groff"):
        pages = sorted(map(str, (tmp_path / "man/man1").iterdir()))
        command = ["groff", "-man", "-Tutf8", "-ww", "-z", *pages]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")


def test_root_from_the_environment(cli: Cli) -> None:
    def listed(**env: str) -> bytes:
        plain = {key: value for key, value in os.environ.items() if key != "LAYERSTORE_ROOT"}
        return subprocess.run(
            [PROGRAM, "images", "-q"], env=plain | env, capture_output=True, timeout=30, check=True
        ).stdout

    cli.run("import", "-", "base", stdin=tarball({"x": b""}))
    assert len(listed(LAYERSTORE_ROOT=str(cli.root))) == 13


def test_root_that_cannot_be_used(cli: Cli) -> None:
    cli.root.parent.mkdir(exist_ok=True)
    cli.root.write_text("a file")
    assert cli.fail("images") == f"cannot open the store {cli.root}: Not a directory"


def test_reader_that_goes(base: Cli) -> None:
    """``layerstore ... | head -0`` ends without a complaint."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [PROGRAM, "--root", base.root, "inspect", "base:1"], stdout=theirs, stderr=subprocess.PIPE, timeout=30
    )
    os.close(theirs)
    assert done.stderr == b""
    assert done.returncode != 0


def test_full_device_is_told(base: Cli) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [PROGRAM, "--root", base.root, "images"], stdout=full, stderr=subprocess.PIPE, timeout=30
        )
    assert done.returncode != 0
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def on_a_terminal(*words: object) -> bytes:
    """What a command shows on a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and select.select([ours], [], [], 30)[0]:
            data = os.read(ours, 65536)
            if not data:
                break
            shown += data
    except OSError:  # EIO: the other side has closed
        pass
    finally:
        os.close(ours)
        assert process.wait(30) == 0
    return shown


def test_progress_on_a_terminal_only(cli: Cli) -> None:
    tar = cli.root.parent / "t.tar"
    tar.write_bytes(tarball({"f": os.urandom(5_000_000)}))
    assert b"Importing" in on_a_terminal("--root", cli.root, "import", tar, "a")
    done = cli.call("import", tar, "b")
    assert done.stderr == b""


def test_terminal_as_input(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [PROGRAM, "--root", cli.root, "import", "-"], stdin=theirs, capture_output=True, timeout=30
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert b"terminal" in done.stderr


def test_internal_errors_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import layerstore
    from layerstore import cli as commands

    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("why\nnot")

    monkeypatch.setattr(layerstore, "ps", broken)
    for signals in ("install", "ignore"):  # they are this process's
        monkeypatch.setattr(commands.interrupts, signals, lambda: None)
    monkeypatch.setattr("sys.argv", ["layerstore", "ps"])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert (
        shown == "layerstore: internal error: ZeroDivisionError: why not (LAYERSTORE_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("LAYERSTORE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        commands.main()
