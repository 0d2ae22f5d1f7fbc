"""The control socket and overlayfs-pyctl."""

import errno
import json
import os
import random
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from overlayfs_py.errors import MountError
from overlayfs_py.service import client, rundir
from overlayfs_py.service.control import ControlSocket
from tests.mounts import Layers, make_layers
from tests.service.starts import (
    cleared,
    daemon_pid,
    is_mounted,
    one_line,
    options,
    overlayfs_py,
    pyctl,
    wait_gone,
)

pytestmark = [pytest.mark.fuse, pytest.mark.root]
RUN_DIR = b"/run/overlayfs-py"


@pytest.fixture
def live(layers: Layers) -> Iterator[Layers]:
    """A mount started in the background."""
    with cleared(layers.merged):
        assert overlayfs_py(*options(layers), layers.merged).returncode == 0
        yield layers
        if is_mounted(layers):
            pyctl("umount", "-l", layers.merged)


def control_socket(layers: Layers) -> bytes:
    (path,) = rundir.sockets(RUN_DIR, os.fsencode(layers.merged))
    return path


def test_socket_is_private(live: Layers) -> None:
    assert stat.S_IMODE(os.stat(control_socket(live)).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(RUN_DIR).st_mode) == 0o700


def test_list_and_status(live: Layers) -> None:
    (found,) = (m for m in json.loads(pyctl("list", "--json").stdout) if m["mountpoint"] == str(live.merged))
    assert found["upper"] == str(live.upper)
    assert found["lower"] == [str(path) for path in live.lowers]
    status = json.loads(pyctl("status", "--json", live.merged).stdout)
    assert status["pid"] == found["pid"] == daemon_pid(live)
    assert status["statistics"]["requests"] > 0
    assert str(live.merged) in pyctl("list").stdout
    assert f"upper: {live.upper}" in pyctl("status", live.merged).stdout


def test_mount_point_as_it_is_typed(live: Layers, where: Path) -> None:
    """Relative and through a link: the same mount."""
    (where / "link").symlink_to(where)
    program = [str(Path(pyctl.__globals__["COMMAND"]).with_name("overlayfs-pyctl")), "status"]
    for typed in ("merged", "merged/", "link/merged", "./merged"):
        subprocess.run([*program, typed], cwd=where, check=True, capture_output=True, timeout=30)


def test_umount_waits_for_the_end(live: Layers) -> None:
    """When the verb returns, the layers are free: the same work directory can be mounted at once."""
    pid = daemon_pid(live)
    assert pyctl("umount", live.merged).returncode == 0
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not is_mounted(live)
    assert overlayfs_py(*options(live), live.merged).returncode == 0


def test_umount_of_a_busy_mount(live: Layers) -> None:
    with (live.merged / "x").open("w"):
        one_line(pyctl("umount", live.merged), str(live.merged), "in use", program="overlayfs-pyctl")
        assert is_mounted(live)
        pid = daemon_pid(live)
        assert pyctl("umount", "-l", live.merged).returncode == 0
        assert not is_mounted(live)
    wait_gone(pid)


@pytest.mark.parametrize("verb", ["status", "umount"])
def test_nothing_mounted(layers: Layers, verb: str) -> None:
    one_line(pyctl(verb, layers.merged), str(layers.merged), program="overlayfs-pyctl")


def test_sockets_of_killed_daemons_are_removed(live: Layers) -> None:
    path = control_socket(live)
    pid = daemon_pid(live)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    assert pyctl("list").returncode == 0
    assert not os.path.exists(path)


def test_a_mount_whose_daemon_does_not_answer(live: Layers, where: Path) -> None:
    """The line says what may be wrong: another run directory, or a dead daemon."""
    elsewhere = pyctl("--run-dir", where, "status", live.merged)
    says = f"the daemon of the overlay on {live.merged} does not answer"
    one_line(elsewhere, says, program="overlayfs-pyctl")
    pid = daemon_pid(live)
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
    one_line(pyctl("sync", live.merged), "unmount it", program="overlayfs-pyctl")


@pytest.mark.parametrize("given", ["x", "0", "-1", "inf", "nan"])
def test_wrong_times(given: str) -> None:
    """A wrong command line: status 2, as with every other."""
    done = pyctl("freeze", f"--timeout={given}", "/mnt")
    assert done.returncode == 2
    assert "expected a number of seconds above 0" in done.stderr


@pytest.mark.parametrize(
    "request_line",
    [b"", b"{}", b"[]", b"nonsense", b'"text"', b'{"verb": "reboot"}', b'{"verb": ["status"]}', b"\xff"],
)
def test_wrong_requests_are_answered(live: Layers, request_line: bytes) -> None:
    """One wrong line neither ends the conversation nor the daemon."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(control_socket(live))
        asking.sendall(request_line + b'\n{"verb": "status"}\n')
        lines = asking.makefile("rb")
        assert json.loads(lines.readline())["ok"] is False
        assert json.loads(lines.readline())["result"]["mountpoint"] == str(live.merged)


def test_endless_request_is_cut_off(live: Layers) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(control_socket(live))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            asking.sendall(b"x" * 6_000_000)
    with client.connect(RUN_DIR, os.fsencode(live.merged)) as daemon:
        assert daemon.ask("status")["mountpoint"] == str(live.merged)


def test_other_verbs_are_named(live: Layers) -> None:
    with (
        client.connect(RUN_DIR, os.fsencode(live.merged)) as daemon,
        pytest.raises(MountError, match="unknown verb reboot; there are status, stats, freeze"),
    ):
        daemon.ask("reboot")


def test_run_dir_of_somebody_else_is_refused(where: Path) -> None:
    (where / "run").mkdir()
    os.chown(where / "run", 1, 1)
    with pytest.raises(PermissionError):
        rundir.make_run_dir(os.fsencode(where / "run"))


def test_run_dir_follows_the_user(where: Path) -> None:
    assert rundir.default_run_dir({"XDG_RUNTIME_DIR": str(where)}, 0) == RUN_DIR
    assert rundir.default_run_dir({"XDG_RUNTIME_DIR": str(where)}, 1000) == os.fsencode(
        where / "overlayfs-py"
    )
    nobody = next(uid for uid in range(90000, 2**31) if not os.path.exists(f"/run/user/{uid}"))
    assert rundir.default_run_dir({}, nobody) == b"/tmp/overlayfs-py-%d" % nobody


# Arguments of every shape for every verb; JSON has no others.
_VALUES = [None, True, 0, -1, 1.5, 1e300, float("nan"), "", "x", [], ["x"], {}, {"a": 1}, {"union.lower": 5}]
_WORDS = ["timeout", "hold", "lazy", "options", "read_only", "union", "verb "]


def _requests() -> Iterator[dict[str, object]]:
    for verb in ("status", "stats", "thaw", "sync", "remount", "freeze"):
        yield {"verb": verb, "\x1b[31m": 1}
        for word in _WORDS:
            for value in _VALUES:
                if (verb, word, value) != ("freeze", "hold", True) and (verb, word) != ("freeze", "timeout"):
                    yield {"verb": verb, word: value}
    for value in _VALUES[:5] + _VALUES[6:]:
        yield {"verb": "freeze", "timeout": value, "hold": "x"}
        yield {"verb": "umount", "lazy": value if not isinstance(value, bool) else 1}
    for name in ("", ".", "union", "union.", "mount.__class__", "union.__dict__", "x.y", "squash_to_root"):
        yield {"verb": "remount", "read_only": True, "options": {name: 1}}


def test_malformed_requests_get_one_clear_line(live: Layers) -> None:
    """No argument is an internal error, and the daemon goes on serving."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(control_socket(live))
        lines = asking.makefile("rb")
        for request in _requests():
            asking.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(lines.readline())
            if not answer["ok"]:
                assert "internal" not in answer["error"], (request, answer)
                assert "\n" not in answer["error"]
    assert (live.merged / ".").exists()
    assert json.loads(pyctl("status", "--json", live.merged).stdout)["frozen"] is None


@pytest.mark.parametrize(
    ("request_words", "says"),
    [
        ({"verb": "remount"}, "remount: options: expected an object of options"),
        ({"verb": "remount", "options": {}}, "remount: read_only: expected true or false"),
        ({"verb": "remount", "options": {"x.y": 1}, "read_only": True}, "unknown option x.y"),
        ({"verb": "umount", "lazy": 1}, "umount: lazy: expected true or false"),
        ({"verb": "freeze", "timeout": "1"}, "freeze: timeout: expected a number of seconds above 0"),
        ({"verb": "status", "color": 1}, "status: unknown argument color; there are none"),
    ],
)
def test_what_is_malformed_is_named(live: Layers, request_words: dict[str, object], says: str) -> None:
    with client.connect(RUN_DIR, os.fsencode(live.merged)) as daemon, pytest.raises(MountError) as refusal:
        daemon.ask(**request_words)  # type: ignore[arg-type]
    assert says in str(refusal.value)


def test_noise_on_the_socket(live: Layers) -> None:
    """Random bytes, lines cut anywhere, conversations broken off: each whole line is answered with one."""
    chance = random.Random(9)
    whole = [
        b'{"verb": "status"}',
        b'{"verb": "thaw"}',
        b'{"verb": 5}',
        b"[" * 5000,
        b'{"a":' * 3000,
        b"1" * 5000,
    ]
    for _ in range(60):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(control_socket(live))
            line = bytearray(chance.choice(whole))
            for _ in range(chance.randrange(4)):
                line[chance.randrange(len(line))] = chance.randrange(256)
            for piece in (line[:7], line[7:]):
                asking.sendall(piece)
            if chance.random() < 0.3:
                continue
            asking.sendall(b"\n")
            answer = json.loads(asking.makefile("rb").readline())
            assert answer["ok"] or "internal" not in answer["error"]
    assert (live.merged / ".").exists()


def test_a_stopped_daemon_is_told_from_a_busy_one(live: Layers) -> None:
    """Every verb says soon what is wrong and what helps, those that may take any time too."""
    pid = daemon_pid(live)
    os.kill(pid, signal.SIGSTOP)
    try:
        for verb in ("status", "sync", "thaw"):
            one_line(pyctl(verb, live.merged), f"kill -CONT {pid}", program="overlayfs-pyctl")
        listed = pyctl("list")
        assert f"the daemon (pid {pid}) is stopped" in listed.stderr
        assert listed.returncode == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert pyctl("status", live.merged).returncode == 0


def test_a_daemon_that_never_answers(live: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes the question, and that is all."""
    monkeypatch.setattr(client, "_LOOK_SECONDS", 0.05)
    path = os.path.dirname(control_socket(live)) + b"/silent"
    with socket.socket(socket.AF_UNIX) as silent:
        try:
            silent.bind(path)
            silent.listen()
            with client.Connection(path, timeout=0.1) as asking:
                with pytest.raises(MountError, match=rf"\(pid {os.getpid()}\) does not answer within 0.1 s"):
                    asking.ask("status")
        finally:
            os.unlink(path)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EMFILE, "no file descriptor left (its limit is"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EIO, "failed: Input/output error"),
    ],
)
async def test_what_the_system_refuses_the_daemon_is_said(where: Path, code: int, says: str) -> None:
    async def verb(request: object, conversation: object) -> None:
        raise OSError(code, os.strerror(code))

    control = ControlSocket(os.fsencode(where), b"/m", {"stats": verb})
    try:
        answer = json.loads(await control._answer(b'{"verb": "stats"}', ExitStack()))
    finally:
        control.close()
    assert answer["ok"] is False
    assert says in answer["error"]
    assert "internal" not in answer["error"]


def test_hostile_names_reach_no_terminal(where: Path) -> None:
    """A mount point and an upper whose names would clear the screen and fake a line."""
    (where / "a\x1b[2J\nroot\u202e").mkdir()
    layers = make_layers(where / "a\x1b[2J\nroot\u202e")
    with cleared(layers.merged):
        assert overlayfs_py(*options(layers), layers.merged).returncode == 0
        for words in (
            ["list"],
            ["status", layers.merged],
            ["stats", layers.merged],
            ["freeze", layers.merged],
        ):
            done = pyctl(*words)
            assert done.returncode == 0
            assert "a\\x1b[2J\\nroot\\u202e" in done.stdout
            assert done.stdout.replace("\n", "").isprintable()
        assert pyctl("thaw", layers.merged).stdout.replace("\n", "").isprintable()
        refused = overlayfs_py(*options(layers), layers.merged)
        one_line(refused, "a\\x1b[2J\\nroot\\u202e")
        found = json.loads(pyctl("status", "--json", layers.merged).stdout)
        assert found["mountpoint"] == str(layers.merged)
        assert pyctl("umount", layers.merged).returncode == 0
        wrong = pyctl("\x1b[2J", "freeze")
        assert wrong.returncode == 2
        assert wrong.stderr.count("\n") == 1
        assert "\x1b" not in wrong.stderr
