"""``overlayfs-pyctl``: query and control the daemons of live mounts through their control sockets."""

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
EXIT_STATUS = "0 on success, 1 with one line on stderr on failure, 2 for a wrong command line"
_FREEZE = """\
Freeze the mount: writers wait, readers continue. From then on the upper directory holds the state of one
instant, written to disk (unless the mount is volatile), until the mount is thawed. With a COMMAND the mount
stays frozen while it runs, and the exit status is the command's. Without one it stays frozen until `thaw` or
until the time is up. Freezing a frozen mount is an error.
"""

Verb = Callable[[argparse.Namespace, bytes], int | None]


class _Parser(argparse.ArgumentParser):
    """Report errors in one line with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {for_people(message)}; see {self.prog} --help\n")


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
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
        return _fail("the daemon does not respond")
    except BrokenPipeError:
        # So that Python has nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(error.strerror or str(error))


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split into our own words and those of the command that `freeze` runs."""
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
        description="Query and control the daemons of mounted overlays: your own, or the system's as root.",
        epilog=f"examples:\n{examples}\n\nexit status: {EXIT_STATUS}",
        formatter_class=raw,
        add_help=False,
    )
    parser.add_argument("--run-dir", metavar="DIR", help="the directory of the control sockets")
    version = f"overlayfs-py: {overlayfs_py.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="print the version")
    parser.add_argument("-h", "--help", action="help", help="print this help, or that of a VERB")
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
    add("list", _list, "list mounted overlays").add_argument("--json", action="store_true", help=_JSON)
    status = add("status", _status, "show layers, flags, options and figures of one mount")
    status.add_argument("mountpoint", metavar="MOUNTPOINT")
    status.add_argument("--json", action="store_true", help=_JSON)
    stats = add("stats", _stats, "show requests, errors, copy-ups and memory of one mount, or of all")
    stats.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?")
    form = stats.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=_JSON)
    form.add_argument("--prometheus", action="store_true", help="in Prometheus's text format")


def _add_changes(add: Callable[..., argparse.ArgumentParser]) -> None:
    freeze = add("freeze", _freeze, "block all changes, so that the upper can be copied", _FREEZE)
    freeze.usage = f"{freeze.prog} [--timeout SECONDS] MOUNTPOINT [-- COMMAND...]"
    freeze.add_argument("mountpoint", metavar="MOUNTPOINT")
    freeze.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS",
        help=f"thaw automatically after that time (default {FREEZE_SECONDS:.0f}; with a COMMAND: never)",
    )  # fmt: skip
    thaw = add("thaw", _thaw, "end a freeze")
    sync = add("sync", _sync, "make all changes durable, also those made through memory mappings")
    umount = add("umount", _umount, "unmount, and wait until the daemon has released the layers")
    for verb in (thaw, sync, umount):
        verb.add_argument("mountpoint", metavar="MOUNTPOINT")
    umount.add_argument("-l", "--lazy", action="store_true", help="detach the mount even if it is in use")
    umount.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="end the daemon even if the mount is in use: its users get errors and lose unwritten data",
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
    """Return the exposition; on a terminal with control characters escaped, since labels hold any names."""
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
            warning = "pages of mapped files that another process is writing are not included"
            say(_PROGRAM, f"warning: {warning}")
        if not command:
            until = f"thaws in {timeout:g} s, or with overlayfs-pyctl thaw"
            print(f"{for_people(arguments.mountpoint)}: frozen within {frozen['took']:.3f} s; {until}")
            return 0
        status = _status_of(command)
        daemon.ask("thaw")
        return status


def _status_of(command: Sequence[str]) -> int:
    """Run the command and return its exit status. It ends with this process, since the freeze does too."""
    try:
        with _signals_handled(), running(command) as process:
            status = process.wait()
    except OSError as error:
        raise ConfigError(f"{command[0]}: {error.strerror}") from error
    return int(status if status >= 0 else 128 - status)


@contextmanager
def _signals_handled() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise. Ctrl-C reaches the command too, which decides what to do."""
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
    """Ignore the signal; unlike SIG_IGN, a handler is not inherited by the command."""


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
    """Connect to the daemon of the mount point, with all links resolved except the last name."""
    from overlayfs_py.options.parse import absolute_mountpoint

    return client.connect(run_dir, absolute_mountpoint(os.getcwdb(), os.fsencode(arguments.mountpoint)))


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_readable(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ":".join(map(_readable, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
