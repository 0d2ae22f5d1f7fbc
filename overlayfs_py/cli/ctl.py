"""``overlayfs-pyctl``: ask and steer the daemons of live mounts over their control sockets."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import overlayfs_py
from overlayfs_py.errors import ConfigError, MountError, OverlayError, for_people, say
from overlayfs_py.service import client
from overlayfs_py.service.exposition import prometheus, readable
from overlayfs_py.service.rundir import default_run_dir
from overlayfs_py.service.subprocesses import running

_PROGRAM = "overlayfs-pyctl"
FREEZE_SECONDS = 60.0
_JSON = "as JSON, for programs"

EXAMPLES = {
    "list": "  overlayfs-pyctl list",
    "status": "  overlayfs-pyctl status /mnt",
    "stats": "  overlayfs-pyctl stats --prometheus > /var/lib/node_exporter/overlayfs-py.prom",
    "freeze": """\
  overlayfs-pyctl freeze /mnt -- cp -a /srv/upper /backup     a copy of one instant
  overlayfs-pyctl freeze /mnt --timeout 10; ...; overlayfs-pyctl thaw /mnt""",
    "thaw": "  overlayfs-pyctl thaw /mnt",
    "sync": "  overlayfs-pyctl sync /mnt",
    "umount": "  overlayfs-pyctl umount /mnt",
}
EXIT_STATUS = "0 when it was done, 1 with one line on stderr when not, 2 for a wrong command line"
_FREEZE = """\
From the answer on nothing changes the mount or its upper directory: writers wait, readers go on, and the
upper is the state of one instant, written to the disk (unless the mount is volatile). With a COMMAND the
mount is frozen while it runs, and the exit status is the command's. Without one it stays frozen until it is
thawed, or until the time is up. A mount that is frozen already is an error.
"""

Verb = Callable[[argparse.Namespace, bytes], int | None]


class _Parser(argparse.ArgumentParser):
    """Errors are one line and status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {for_people(message)}; see {self.prog} --help\n")


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    if "_OVERLAYFS_PYCTL_COMPLETE" in os.environ:
        from overlayfs_py.cli import completion

        return completion.answer(make_parser(), os.environ["_OVERLAYFS_PYCTL_COMPLETE"])
    words, command = _split(sys.argv[1:] if argv is None else list(argv))
    arguments = make_parser().parse_args(words, argparse.Namespace(command=command))
    run_dir = os.fsencode(arguments.run_dir or default_run_dir(os.environ, os.geteuid()))
    try:
        return arguments.verb(arguments, run_dir) or 0
    except OverlayError as error:
        return _fail(str(error))
    except TimeoutError:
        return _fail("the daemon does not answer")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed there
        return 1
    except OSError as error:
        return _fail(error.strerror or str(error))


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of this program and those of the command that `freeze` runs."""
    if "freeze" in words and "--" in words[words.index("freeze") :]:
        end = words.index("--", words.index("freeze"))
        return words[:end], words[end + 1 :]
    return words, []


def _fail(message: str) -> int:
    _complain(message)
    return 1


def _complain(message: str) -> None:
    say(_PROGRAM, message)


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    examples = "\n".join(EXAMPLES.values())
    parser = _Parser(
        prog=_PROGRAM,
        usage="overlayfs-pyctl [--run-dir DIR] VERB ...",
        description="Ask and steer the daemons of mounted overlays: your own, or as root the system's.",
        epilog=f"examples:\n{examples}\n\nexit status: {EXIT_STATUS}",
        formatter_class=raw,
        add_help=False,
    )
    parser.add_argument("--run-dir", metavar="DIR", help="where the control sockets are")
    version = f"overlayfs-py: {overlayfs_py.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="print the version")
    parser.add_argument("-h", "--help", action="help", help="print this, or with a VERB what it does")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=_Parser)

    def add(name: str, verb: Verb, text: str, more: str = "") -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            prog=f"{parser.prog} {name}",
            help=text,
            description=more or f"{text[0].upper()}{text[1:]}.",
            epilog=f"examples:\n{EXAMPLES[name]}",
            formatter_class=raw,
            add_help=False,
        )
        made.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        made.set_defaults(verb=verb)
        return made

    _add_looks(add)
    _add_changes(add)
    return parser


def _add_looks(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("list", _list, "what is mounted").add_argument("--json", action="store_true", help=_JSON)
    status = add("status", _status, "one mount's layers, flags, options and figures")
    status.add_argument("mountpoint", metavar="MOUNTPOINT")
    status.add_argument("--json", action="store_true", help=_JSON)
    stats = add("stats", _stats, "requests, errors, copy-ups, memory: of one mount, or of all")
    stats.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    form = stats.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=_JSON)
    form.add_argument("--prometheus", action="store_true", help="in Prometheus's text format")


def _add_changes(add: Callable[..., argparse.ArgumentParser]) -> None:
    freeze = add("freeze", _freeze, "hold all changes, so that the upper can be copied", _FREEZE)
    freeze.usage = f"{freeze.prog} [--timeout SECONDS] MOUNTPOINT [-- COMMAND...]"
    freeze.add_argument("mountpoint", metavar="MOUNTPOINT")
    freeze.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS",
        help=f"thaw by itself after that time (default {FREEZE_SECONDS:.0f}; with a COMMAND: none)",
    )  # fmt: skip
    thaw = add("thaw", _thaw, "let changes go on")
    sync = add("sync", _sync, "make all changes durable, also those of mapped files")
    umount = add("umount", _umount, "unmount, and wait until the layers are released")
    for verb in (thaw, sync, umount):
        verb.add_argument("mountpoint", metavar="MOUNTPOINT")
    umount.add_argument("-l", "--lazy", action="store_true", help="detach it while it is in use")
    umount.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="end its daemon, whoever uses it: they get errors, and lose what is not written yet",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, not {text}")
    return seconds


def _list(arguments: argparse.Namespace, run_dir: bytes) -> None:
    mounts = client.ask_all(run_dir, "status", _complain)
    if arguments.json:
        print(json.dumps(mounts, indent=2))
        return
    rows: list[tuple[str, ...]] = [("MOUNTPOINT", "PID", "ENGINE", "LAYERS", "UPPER")]
    for found in mounts:
        layers = len(found["lower"]) + len(found["data_lower"])
        words = (found["mountpoint"], found["pid"], found["engine"]["name"], layers, found["upper"] or "-")
        rows.append(tuple(for_people(str(word)) for word in words))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _status(arguments: argparse.Namespace, run_dir: bytes) -> None:
    with _connect(arguments, run_dir) as daemon:
        status = daemon.ask("status")
    if arguments.json:
        print(json.dumps(status, indent=2))
        return
    for name, value in status.items():
        print(f"{name}: {for_people(_readable(value))}")


def _stats(arguments: argparse.Namespace, run_dir: bytes) -> None:
    if arguments.mountpoint is None:
        found = client.ask_all(run_dir, "stats", _complain)
    else:
        with _connect(arguments, run_dir) as daemon:
            found = [daemon.ask("stats")]
    if arguments.prometheus:
        print(_exposed(found), end="")
    elif arguments.json:
        print(json.dumps(found if arguments.mountpoint is None else found[0], indent=2))
    elif found:
        print("\n\n".join(map(readable, found)))


def _exposed(found: Sequence[Mapping[str, Any]]) -> str:
    """For Prometheus as it is; names in labels may be anything, so not for a terminal."""
    text = prometheus(found)
    return "".join(f"{for_people(line)}\n" for line in text.splitlines()) if sys.stdout.isatty() else text


def _freeze(arguments: argparse.Namespace, run_dir: bytes) -> int:
    timeout: float | None = arguments.timeout
    command: list[str] = arguments.command
    if timeout is None and not command:
        timeout = FREEZE_SECONDS
    with _connect(arguments, run_dir) as daemon:
        frozen = daemon.freeze(timeout=timeout, hold=bool(command))
        if frozen["pages_left"]:
            warning = "pages of mapped files that somebody else is writing to are not included"
            say(_PROGRAM, f"warning: {warning}")
        if not command:
            until = f"thaws in {timeout:g} s unless told before"
            print(f"{for_people(arguments.mountpoint)}: frozen within {frozen['took']:.3f} s; {until}")
            return 0
        status = _status_of(command)
        daemon.ask("thaw")
        return status


def _status_of(command: Sequence[str]) -> int:
    """The command's exit status. It does not outlive us: then changes go on, and it would not know."""
    try:
        with _caring_for_signals(), running(command) as process:
            status = process.wait()
    except OSError as error:
        raise ConfigError(f"{command[0]}: {error.strerror}") from error
    return int(status if status >= 0 else 128 - status)


@contextmanager
def _caring_for_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise. A terminal tells the command of Ctrl-C, too: that is its affair."""
    handlers = {signal.SIGINT: _ignored, signal.SIGTERM: _terminated, signal.SIGHUP: _terminated}
    before = {number: signal.getsignal(number) for number in handlers}
    caught = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in caught:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)


def _ignored(number: int, frame: FrameType | None) -> None:
    """By a handler, which the command does not inherit."""


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _thaw(arguments: argparse.Namespace, run_dir: bytes) -> None:
    with _connect(arguments, run_dir) as daemon:
        frozen_for = daemon.ask("thaw")["frozen_for"]
        print(f"{for_people(arguments.mountpoint)}: thawed after {frozen_for:.3f} s")


def _sync(arguments: argparse.Namespace, run_dir: bytes) -> None:
    with _connect(arguments, run_dir) as daemon:
        daemon.wait_without_limit()
        daemon.ask("sync")


def _umount(arguments: argparse.Namespace, run_dir: bytes) -> None:
    from overlayfs_py.service.ending import Ending
    from overlayfs_py.service.keepers import FORCE, connection_of

    place = for_people(arguments.mountpoint)
    with (
        _connect(arguments, run_dir) as daemon,
        Ending(
            daemon.pid, connection_of(daemon.pid, run_dir), place=place, remedy=f"{FORCE} {place}"
        ) as ending,
    ):
        if arguments.force:
            ending.force(run_dir)
            return
        try:
            daemon.ask("umount", lazy=arguments.lazy)
        except MountError as refusal:
            if ending.is_shown_here():
                raise
            raise MountError(f"{place} is not mounted here{ending.kept()}") from refusal
        if not arguments.lazy and (remark := ending.wait()):
            _complain(remark)


def _connect(arguments: argparse.Namespace, run_dir: bytes) -> client.Connection:
    """To the daemon of the mount point as it was typed: links resolved but for the last name."""
    from overlayfs_py.options.parse import absolute_mountpoint

    return client.connect(run_dir, absolute_mountpoint(os.getcwdb(), os.fsencode(arguments.mountpoint)))


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_readable(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ":".join(map(_readable, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
