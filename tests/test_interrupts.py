"""Ctrl-C at any instant of a program's life ends it without a traceback."""

import signal
import subprocess
import sys

import pytest

_PROGRAMS = ("cli", "ctl")

# Raises SIGINT at the first line of a module that the program loads, or in the callback that each import has.
_INTERRUPTED = """
import signal, sys, weakref
from overlayfs_py import {program}

class Trap:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            reference = weakref.ref(Trap(), lambda _: signal.raise_signal(signal.SIGINT))
            print("went on", flush=True)

sys.meta_path.insert(0, Trap())
{program}.main(["list"])
"""


@pytest.mark.parametrize("program", _PROGRAMS)
def test_nothing_is_loaded_before_it_is_cared_for(program: str) -> None:
    """The entry itself needs next to nothing."""
    script = f"import sys; before = set(sys.modules); import overlayfs_py.{program}; "
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
        f"overlayfs_py.{program}",
        "overlayfs_py.interrupts",
    }


@pytest.mark.parametrize(
    ("program", "module"),
    [("cli", "overlayfs_py.options"), ("ctl", "argparse"), ("ctl", "overlayfs_py.service.client")],
)
def test_interrupted_while_it_is_loaded(program: str, module: str) -> None:
    """Also in a callback, where Python prints what is raised and goes on."""
    script = _INTERRUPTED.format(program=program, module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("program", _PROGRAMS)
def test_interrupted_at_work(program: str) -> None:
    script = (
        f"import signal; from overlayfs_py import {program}\n"
        f"from overlayfs_py.{program} import program as body\n"
        f"body.run = lambda argv: signal.raise_signal(signal.SIGINT); {program}.main([])"
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
