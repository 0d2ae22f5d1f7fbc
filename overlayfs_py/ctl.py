"""``overlayfs-pyctl``: ask and steer the daemons of live mounts over their control sockets."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from overlayfs_py.errors import OverlayError
from overlayfs_py.service import client
from overlayfs_py.service.rundir import default_run_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    run_dir = os.fsencode(arguments.run_dir or default_run_dir(os.environ, os.geteuid()))
    try:
        arguments.verb(arguments, run_dir)
    except OverlayError as error:
        print(f"overlayfs-pyctl: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"overlayfs-pyctl: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overlayfs-pyctl", description="Steer mounted overlays.")
    parser.add_argument("--run-dir", metavar="DIR", help="where the control sockets are")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    list_ = verbs.add_parser("list", help="what is mounted")
    list_.add_argument("--json", action="store_true")
    list_.set_defaults(verb=_list)
    status = verbs.add_parser("status", help="one mount's layers, options and figures")
    status.add_argument("mountpoint")
    status.add_argument("--json", action="store_true")
    status.set_defaults(verb=_status)
    umount = verbs.add_parser("umount", help="unmount, and wait until the layers are released")
    umount.add_argument("mountpoint")
    umount.add_argument("-l", "--lazy", action="store_true", help="detach it while it is in use")
    umount.set_defaults(verb=_umount)
    return parser


def _list(arguments: argparse.Namespace, run_dir: bytes) -> None:
    mounts = client.list_mounts(run_dir)
    if arguments.json:
        print(json.dumps(mounts, indent=2))
        return
    rows: list[tuple[str, ...]] = [("MOUNTPOINT", "PID", "ENGINE", "LAYERS", "UPPER")]
    for found in mounts:
        layers = len(found["lower"]) + len(found["data_lower"])
        words = (found["mountpoint"], found["pid"], found["engine"]["name"], layers, found["upper"] or "-")
        rows.append(tuple(map(str, words)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _status(arguments: argparse.Namespace, run_dir: bytes) -> None:
    with client.connect(run_dir, _absolute(arguments.mountpoint)) as daemon:
        status = daemon.ask("status")
    if arguments.json:
        print(json.dumps(status, indent=2))
        return
    for name, value in status.items():
        print(f"{name}: {_readable(value)}")


def _umount(arguments: argparse.Namespace, run_dir: bytes) -> None:
    with client.connect(run_dir, _absolute(arguments.mountpoint)) as daemon:
        daemon.ask("umount", lazy=arguments.lazy)
        if not arguments.lazy:
            daemon.wait_ended()


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_readable(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ":".join(map(_readable, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _absolute(mountpoint: str) -> bytes:
    """As the parser makes it: links resolved but for the last name."""
    from overlayfs_py.options.parse import absolute_mountpoint

    return absolute_mountpoint(os.getcwdb(), os.fsencode(mountpoint))


if __name__ == "__main__":
    sys.exit(main())
