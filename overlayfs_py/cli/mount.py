"""``overlayfs-py``: the mount command for people, mount(8), fstab, podman and systemd.

Only parsing is imported here; the serving process loads the daemon's libraries.
"""

import argparse
import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import overlayfs_py
from overlayfs_py.errors import ConfigError, OverlayError, say
from overlayfs_py.options import Options, parse_options, split_options
from overlayfs_py.options.parse import Pair, absolute_mountpoint
from overlayfs_py.options.remount import is_remount
from overlayfs_py.service.rundir import default_run_dir

if TYPE_CHECKING:
    from overlayfs_py.service.report import StartReport

_PROGRAM = "overlayfs-py"
USAGE = "overlayfs-py [-f] [-d] -o lowerdir=A[:B...][,upperdir=U,workdir=W][,OPTION...] [SOURCE] MOUNTPOINT"
DESCRIPTION = """\
Mount a stack of read-only lower directories under one writable upper directory.
Without -f the command returns when the mount is usable. Without upperdir the mount is read-only.
"""
EXAMPLES = """\
  overlayfs-py -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mnt      /a above /b, changes go to /u
  overlayfs-py -o lowerdir=/a:/b /mnt                             read-only
  mount -t fuse.overlayfs-py overlay /mnt -o lowerdir=/a,upperdir=/u,workdir=/w
  mount -o remount,ro /mnt                                        and back: remount,rw
  overlayfs-pyctl list                                            what is mounted
  overlayfs-pyctl umount /mnt                                     or: umount /mnt, fusermount3 -u /mnt
"""


def options_of(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Return (option as written, help) for every option that is meant for people."""
    shown = [action for action in parser._actions if action.option_strings and action.help]
    return [
        (" ".join([", ".join(action.option_strings), *_value(action)]), action.help or "")
        for action in shown
        if action.help != argparse.SUPPRESS
    ]


def _value(action: argparse.Action) -> list[str]:
    return [] if action.nargs == 0 else [str(action.metavar or action.dest.upper())]


class _Parser(argparse.ArgumentParser):
    """Report errors in one line with status 1, like every other error of a mount command."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; usage: {USAGE}")

    def format_help(self) -> str:
        lines = [f"  {words:<18}{text}" for words, text in options_of(self)]
        return f"usage: {USAGE}\n\n{DESCRIPTION}\n" + "\n".join(lines) + f"\n\nexamples:\n{EXAMPLES}"


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    if "_OVERLAYFS_PY_COMPLETE" in os.environ:
        return _complete(os.environ["_OVERLAYFS_PY_COMPLETE"])
    try:
        arguments = make_parser().parse_intermixed_args(argv)
        asked = _asked(arguments)
        run_dir = default_run_dir(os.environ, os.geteuid())
        if is_remount(asked.pairs):
            _warn(_remount(asked, run_dir))
            return 0
        options = _options(arguments, asked, os.environ, run_dir)
        _warn(options.warnings)
        return _start(options, arguments.parent_fd)
    except OverlayError as error:
        say(_PROGRAM, str(error))
    return 1


def _complete(instruction: str) -> int:
    from overlayfs_py.cli import completion

    return completion.answer(make_parser(), instruction)


def make_parser() -> _Parser:
    parser = _Parser(prog=_PROGRAM, allow_abbrev=False, add_help=False)
    add, hidden = parser.add_argument, argparse.SUPPRESS
    options = "mount options, comma-separated; may be repeated (man overlayfs-py lists them)"
    add("-o", action="append", default=[], dest="options", metavar="OPTIONS", help=options)
    add("-f", "--foreground", action="store_true", help="stay in the foreground")
    add("-d", "--debug", action="store_true", help="log every request (implies -f)")
    add("-s", action="store_true", help=hidden)  # for libfuse programs: one thread, as always here
    add("--config", type=Path, metavar="FILE", help="read the mount point and options from a TOML file")
    add("--parent-fd", type=int, help=hidden)  # of overlayfs_py.mount()
    version = f"overlayfs-py: {overlayfs_py.__version__}"
    add("-V", "--version", action="version", version=version, help="print the version")
    add("-h", "--help", action="help", help="print this help")
    parser.add_argument("words", nargs="*", metavar="[SOURCE] MOUNTPOINT")
    return parser


class _Asked(NamedTuple):
    """Options, mount point (as typed) and source, from the command line and the configuration file."""

    pairs: list[Pair]
    mountpoint: bytes
    source: str | None


def _asked(arguments: argparse.Namespace) -> _Asked:
    mountpoint = b""
    pairs: list[Pair] = []
    if arguments.config is not None:
        from overlayfs_py.options.config import read_config

        mountpoint, pairs = read_config(arguments.config)
    for text in arguments.options:
        pairs += split_options(text)
    words = list(arguments.words)
    if len(words) > 2:
        raise ConfigError(f"too many words ({' '.join(words[2:])}); usage: {USAGE}")
    if words:
        mountpoint = os.fsencode(words.pop())
    if not mountpoint:
        raise ConfigError(f"mount point is missing; usage: {USAGE}")
    return _Asked(pairs, mountpoint, words[0] if words else None)


def _remount(asked: _Asked, run_dir: bytes) -> Sequence[str]:
    """Remount. A source means that mount(8) calls: it has merged the mount's present flags into the
    options.
    """
    from overlayfs_py.service.remount import remount

    cwd = os.getcwdb()
    mountpoint = absolute_mountpoint(cwd, asked.mountpoint)
    return remount(
        asked.pairs, mountpoint=mountpoint, cwd=cwd, complete=asked.source is not None, run_dir=run_dir
    )


def _options(
    arguments: argparse.Namespace, asked: _Asked, environ: Mapping[str, str], run_dir: bytes
) -> Options:
    service: dict[str, object] = {
        "foreground": arguments.foreground or arguments.debug or arguments.parent_fd is not None,
        "debug": arguments.debug,
        "run_dir": run_dir,
    }
    if (
        service["foreground"] and "NOTIFY_SOCKET" in environ
    ):  # in the background the socket belongs to our caller
        service |= {"notify": True, "watchdog": _watchdog(environ)}
    return parse_options(
        asked.pairs, mountpoint=asked.mountpoint, source=asked.source, cwd=os.getcwdb(), service=service
    )


def _watchdog(environ: Mapping[str, str]) -> float:
    """Return the watchdog time in seconds (sd_watchdog_enabled(3)); 0 when it is for another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(environ.get("WATCHDOG_USEC") or 0) / 1e6


def _start(options: Options, parent_fd: int | None) -> int:
    if not options.service.foreground:
        from overlayfs_py.service.background import start_in_background

        start_in_background(lambda report: _run(options, report))
        return 0
    from overlayfs_py.service.log import log_to_stderr
    from overlayfs_py.service.report import FdReport, StderrReport

    log_to_stderr(
        debug=options.service.debug, journal="JOURNAL_STREAM" in os.environ, quiet=parent_fd is not None
    )
    if parent_fd is None:
        return _run(options, StderrReport())
    return _run(options, FdReport(parent_fd), parent_fd)


def _run(options: Options, report: "StartReport", parent_fd: int | None = None) -> int:
    gc.disable()  # imports make no garbage; the daemon turns collection on again
    from overlayfs_py.service.process import run_daemon

    return run_daemon(options, report, parent_fd)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        say(_PROGRAM, f"warning: {warning}")
