"""What signals do to a command, at the instants that no signal from outside can be aimed at."""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from layerstore.undoing import undone
from tests.layerstore.commands import Cli, tarball, wait_until_it_hears
from tests.waiting import is_asleep, wait_until

_SCRIPT = """
import os, signal, sys, time, weakref
from layerstore.cli import interrupts

class Thing:
    pass

def twice():
    try:
        signal.raise_signal(NUMBER)
    finally:
        signal.raise_signal(NUMBER)
        print("cleaned up", flush=True)

def three_times():
    try:
        signal.raise_signal(NUMBER)
    finally:
        signal.raise_signal(NUMBER)
        signal.raise_signal(NUMBER)
        print("cleaned up", flush=True)

def in_a_callback():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(NUMBER))
    del thing
    time.sleep(20)

interrupts.install()
globals()[sys.argv[1]]()
"""


def played(what: str, number: int, **options: object) -> "subprocess.CompletedProcess[str]":
    script = f"NUMBER = {number:d}\n{_SCRIPT}"
    command = [sys.executable, "-c", script, what]
    return subprocess.run(command, capture_output=True, text=True, timeout=15, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_impatient_do_not_interrupt_the_cleaning_up(number: int) -> None:
    done = played("twice", number)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned up\n", "")


_ONE = pytest.mark.parametrize("number", [signal.SIGTERM])


@_ONE
def test_but_three_do(number: int) -> None:
    done = played("three_times", number)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


@_ONE
def test_none_is_lost_where_no_error_can_be_raised(number: int) -> None:
    """As in the callback that every import has: Python prints such errors and goes on."""
    done = played("in_a_callback", number)
    assert (done.returncode, done.stderr) == (128 + number, "")


def test_what_is_ignored_stays_ignored() -> None:
    """nohup layerstore ..., and what a script starts in the background."""
    done = played("twice", signal.SIGHUP, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout) == (0, "cleaned up\n")


def test_interrupted_while_it_is_loaded() -> None:
    """The entry itself loads next to nothing: whoever presses Ctrl-C early sees no traceback."""
    script = "import sys; from layerstore import cli; print('click' in sys.modules, 'msgspec' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=15, check=True
    )
    assert done.stdout == "False False\n"


class Interrupted(BaseException):
    """What a handler raises."""


def test_what_is_undone_is_undone_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def undo() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise Interrupted

    with pytest.raises(Interrupted), undone(undo):
        pass
    assert calls == [0, 1]


def test_an_error_is_an_error() -> None:
    calls: list[int] = []

    def undo() -> None:
        calls.append(len(calls))
        raise OSError

    with pytest.raises(OSError), undone(undo):  # noqa: PT011 - the very one above
        pass
    assert calls == [0]


def test_killed_nothing_lies_beside_an_output_file(where: Path) -> None:
    script = (
        "import os, signal, sys; from layerstore.transport.output import open_output\n"
        "with open_output(sys.argv[1]) as out:\n"
        "    out.write(b'x' * 100000); out.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, where / "out.tar"], timeout=15)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(where) == []


def test_a_pipe_that_nobody_reads_holds_nobody_up(base: Cli, where: Path) -> None:
    """Its writer is a thread, which the end of the command waits for."""
    base.run("import", "-", "big:1", stdin=tarball({"f": os.urandom(1 << 20)}))
    ours, theirs = os.pipe()
    try:
        process = base.start("export", "big:1", stdout=theirs, stderr=subprocess.PIPE)
        wait_until(lambda: not select.select([], [theirs], [], 0)[1] and is_asleep(process.pid))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (process.returncode, said) == (130, b"")


def _is_read(pipe: int) -> bool:
    """Whether nothing is left in a pipe."""
    return fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) == bytes(4)


@pytest.mark.parametrize("words", [("import",), ("load", "-i")])
def test_a_pipe_that_nobody_writes_does_not_either(base: Cli, where: Path, words: tuple[str, ...]) -> None:
    os.mkfifo(where / "pipe")
    process = base.start(*words, where / "pipe", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with open(where / "pipe", "wb") as writer:
        writer.write(tarball({"f": b"x" * 3000})[:2048])
        writer.flush()
        wait_until_it_hears(process)
        wait_until(lambda: _is_read(writer.fileno()) and is_asleep(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 143


def test_a_server_that_stalls_does_not_either(base: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/rootfs.tar"
        process = base.start("import", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + bytes(100))
            assert process.stdout
            assert process.stdout.readline() == f"Downloading from {url}\n".encode()
            wait_until(lambda: is_asleep(process.pid))
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 143
