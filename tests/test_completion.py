"""What shells complete for overlayfs-py and overlayfs-pyctl, and the manual pages that are made beside it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayfs_py.cli import completion, ctl, pages
from overlayfs_py.cli import mount as cli
from overlayfs_py.options.table import ROWS
from tests.mounts import COMMAND, Layers, OverlayMount

CONTROL = COMMAND.with_name("overlayfs-pyctl")


def mounting(*words: str) -> list[str]:
    return [item.value for item in completion.candidates(cli.make_parser(), words[:-1], words[-1])]


def steering(*words: str) -> list[str]:
    return [item.value for item in completion.candidates(ctl.make_parser(), words[:-1], words[-1])]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("lowerd", ["lowerdir=", "lowerdir+="]),
        ("ro,nosu", ["ro,nosuid"]),
        ("metacopy=", ["metacopy=on", "metacopy=off"]),
        ("lowerdir=/a:/b,engine=n", ["lowerdir=/a:/b,engine=native"]),
        ("volatile,volat", []),
        ("lowerdir+=/a,lowerdir+", ["lowerdir+=/a,lowerdir+="]),
        ("nonsense=", []),
        ("timeout=", []),
    ],
)
def test_mount_options(typed: str, found: list[str]) -> None:
    assert mounting("-o", typed) == found


def test_every_option_that_does_something_is_offered() -> None:
    offered = {word.rstrip("=") for word in mounting("-o", "")}
    assert offered >= {"lowerdir", "upperdir", "workdir", "ro", "remount", "data", "awake"}
    assert offered <= set(ROWS)
    assert not offered & {"plugins", "nonempty", "_netdev"}


def test_directories_in_options(tmp_path: Path) -> None:
    """Of one option and after a colon; what the option text gives a meaning is escaped."""
    for name in ("one", "o,p:q", "two", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert mounting("-o", f"upperdir={tmp_path}/") == [
        f"upperdir={tmp_path}/{name}/" for name in ("o\\,p\\:q", "one", "two")
    ]
    assert mounting("-o", f"ro,lowerdir=/x:{tmp_path}/t") == [f"ro,lowerdir=/x:{tmp_path}/two/"]
    assert mounting("-o", f"upperdir={tmp_path}/nothing/") == []


def test_options_and_verbs() -> None:
    assert mounting("--c") == ["--config"]
    assert "--parent-fd" not in mounting("--")
    assert steering("s") == ["status", "stats", "sync"]
    assert steering("stats", "--") == ["--json", "--prometheus"]
    assert steering("--run-dir", "/run", "um") == ["umount"]
    assert steering("nonsense", "") == []
    assert steering("freeze", "/mnt", "") == []


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.parametrize("engine", ["native"])
def test_live_mounts(layers: Layers, mounted: OverlayMount) -> None:
    place = str(layers.merged)
    for verb in ("status", "stats", "freeze", "thaw", "sync", "umount"):
        assert steering(verb, place[:-2]) == [place]
    assert place in steering("umount", "--lazy", "/")


_LOAD = {
    "bash": (["--norc", "--noprofile"], 'eval "$(_OVERLAYFS_PY_COMPLETE=bash_source overlayfs-py)"'),
    "zsh": (
        ["-f"],
        'autoload -U compinit; compinit -u -D; eval "$(_OVERLAYFS_PY_COMPLETE=zsh_source overlayfs-py)"',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", _LOAD)
def test_a_shell_on_a_terminal(shell: str, tmp_path: Path) -> None:
    """Typed lines with a tab become what they should; a value is not cut off where the shell splits words."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "a name").mkdir()
    words, load = _LOAD[shell]
    with terminal([shell, *words, "-i"]) as fd:
        os.write(fd, f"{load}; echo rea''dy\n".encode())
        read_until(fd, "ready")
        for typed, becomes in (
            ("overlayfs-py --conf", "overlayfs-py --config"),
            ("overlayfs-py -o upperd", "overlayfs-py -o upperdir=|"),
            (f"overlayfs-py -o ro,lowerdir=/x:{tmp_path}/a", f"ro,lowerdir=/x:{tmp_path}/a\\ name/|"),
            ("overlayfs-py -o lowerdir=/x,engine=nat", "lowerdir=/x,engine=native|"),
        ):
            os.write(fd, typed.encode() + b"\t|")
            read_until(fd, becomes)
            os.write(fd, b"\x15")  # the line is taken back


def test_fish() -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = completion.script("overlayfs-py", "fish") + "complete -C 'overlayfs-py -o ro,engine=nat'"
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["fish", "--no-config"], input=script, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "ro,engine=native\n", done.stderr


@contextlib.contextmanager
def terminal(command: list[str]) -> Iterator[int]:
    """A program on a terminal of its own, wide enough for any line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
    environment = {**os.environ, "TERM": "dumb", "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait(20)
        os.close(ours)


def read_until(fd: int, wanted: str) -> None:
    """Until the terminal shows it; how the shell moves its cursor is passed over."""
    text = ""
    deadline = time.monotonic() + 20
    while wanted not in re.sub(r"\x07|.\x08|\x1b\[[0-9;?]*[a-zA-Z]", "", text):
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], text
        text += os.read(fd, 4096).decode(errors="replace")


def test_manual_pages(tmp_path: Path) -> None:
    """Every verb, every option of the commands, every mount option; roff has nothing to complain of."""
    made = pages.manual()
    mount_page, control_page = made["man/man1/overlayfs-py.1"], made["man/man1/overlayfs-pyctl.1"]
    for name in ROWS:
        assert f".B {name}".replace("-", "\\-") in mount_page
    assert "--parent" not in mount_page.replace("\\", "")
    for verb in pages.verbs(ctl.make_parser()):
        assert f'.SS "{verb}"' in control_page
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for name, text in made.items():
        words = ["groff", "-man", "-ww", "-Tutf8", "-z"]
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == "", name


def test_an_answer_that_nobody_asked_for_right() -> None:
    """A shell that is not known: status 1, as click's programs."""
    environment = {**os.environ, "_OVERLAYFS_PYCTL_COMPLETE": "tcsh_complete"}
    done = subprocess.run([CONTROL, "list"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
