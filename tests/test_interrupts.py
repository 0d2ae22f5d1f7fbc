"""Ctrl-C at any instant of a program's life ends it without a traceback."""

import signal
import subprocess
import sys

import pytest

_PROGRAMS = {"main": "mount", "control": "ctl"}  # entry: the module behind it

# Raises SIGINT at the first line of a module that the program loads, or in the callback that each import has.
_INTERRUPTED = """
import signal, sys, weakref
from overlayfs_py import cli

class Trap:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            reference = weakref.ref(Trap(), lambda _: signal.raise_signal(signal.SIGINT))
            print("went on", flush=True)

sys.meta_path.insert(0, Trap())
cli.{entry}(["list"])
"""


def test_nothing_is_loaded_before_it_is_cared_for() -> None:
    """The entries themselves need next to nothing."""
    script = "import sys; before = set(sys.modules); import overlayfs_py.cli; "
    script += "print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.split()) - {"_signal", "enum", "types", "operator", "_operator", "functools"}
    assert {name for name in loaded if not name.startswith(("_", "overlayfs_py"))} <= {
        "signal",
        "__future__",
        "collections",
        "keyword",
        "reprlib",
        "itertools",
    }
    assert {name for name in loaded if name.startswith("overlayfs_py.")} == {
        "overlayfs_py.cli",
        "overlayfs_py.interrupts",
    }


@pytest.mark.parametrize(
    ("entry", "module"),
    [
        ("main", "overlayfs_py.options"),
        ("control", "argparse"),
        ("control", "overlayfs_py.service.client"),
    ],
)
def test_interrupted_while_it_is_loaded(entry: str, module: str) -> None:
    """Also in a callback, where Python prints what is raised and goes on."""
    script = _INTERRUPTED.format(entry=entry, module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("entry", "module"), _PROGRAMS.items())
def test_interrupted_at_work(entry: str, module: str) -> None:
    script = (
        "import signal; from overlayfs_py import cli\n"
        f"from overlayfs_py.cli import {module} as body\n"
        f"body.run = lambda argv: signal.raise_signal(signal.SIGINT); cli.{entry}([])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_what_is_ignored_stays_ignored() -> None:
    """A program that a script started with ``&``."""
    script = "import signal; from overlayfs_py import interrupts; interrupts.end_quietly(); "
    script += "signal.raise_signal(signal.SIGINT); print('alive')"
    ignored = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, preexec_fn=ignored)
    assert done.stdout == b"alive\n"
