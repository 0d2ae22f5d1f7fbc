"""Where the upper's file system has no flag of renameat2: the same results, and dead at any system call the
next mount shows the old state or the new one, whole.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from overlayfs_py.errors import LayerError
from overlayfs_py.union import probe
from overlayfs_py.union.overlay import Overlay
from tests import snapshots
from tests.oracle.operations import Interpreter, Operation
from tests.rawcalls import RENAME_EXCHANGE
from tests.snapshots import Facts
from tests.trees import File
from tests.union.conftest import Opener, Union

pytestmark = [pytest.mark.root]

LOWER = {
    "d/f": File(b"d/f"),
    "d/sub/x": File(b"x"),
    "e/g": File(b"g"),
    "e/full/y": File(b"y"),
    "gone/z": File(b"z"),
}
GONE: tuple[Operation, ...] = ((0, "unlink", b"gone/z"), (0, "rmdir", b"gone"))
EMPTY: tuple[Operation, ...] = ((0, "unlink", b"gone/z"),)
NEW: tuple[Operation, ...] = ((0, "mkdir", b"new", 0o755), (0, "mknod", b"new/n", 0o100644, 0))
# The calls that change a layer: between two of them every moment to die is the same.
CHANGING = ("rename", "unlink", "rmdir", "mkdir", "mknod", "write")
DEAD = 77


class Case(NamedTuple):
    before: tuple[Operation, ...]
    operation: Operation


CASES = {
    "rmdir of a lower directory": Case(EMPTY, GONE[1]),
    "mkdir over a whiteout": Case(GONE, (0, "mkdir", b"gone", 0o700)),
    "rename of a file": Case((), (0, "rename", b"d/f", b"e/new", 0)),
    "rename over a file": Case((), (0, "rename", b"d/f", b"e/g", 0)),
    "rename over an upper file": Case(NEW, (0, "rename", b"d/f", b"new/n", 0)),
    "rename over a whiteout": Case(GONE, (0, "rename", b"d/f", b"gone", 0)),
    "rename of a directory": Case((), (0, "rename", b"d", b"e/moved", 0)),
    "rename of a directory over a whiteout": Case(GONE, (0, "rename", b"d", b"gone", 0)),
    "rename of a new directory over a whiteout": Case(GONE + NEW, (0, "rename", b"new", b"gone", 0)),
    "rename over an emptied directory": Case(EMPTY + NEW, (0, "rename", b"new", b"gone", 0)),
    "rename of a directory over an emptied one": Case(EMPTY, (0, "rename", b"d", b"gone", 0)),
    "exchange of files": Case((), (0, "rename", b"d/f", b"e/g", RENAME_EXCHANGE)),
    "exchange of directories": Case((), (0, "rename", b"d", b"e/full", RENAME_EXCHANGE)),
    "exchange of a file with a directory": Case(NEW, (0, "rename", b"d/f", b"new", RENAME_EXCHANGE)),
}


@pytest.fixture
def open_plain(open_union: Opener, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Union]:
    """An upper that takes no flag."""
    monkeypatch.setattr(probe, "_renames", lambda work, flag: False)
    return lambda: open_union(LOWER, redirect_dir="on")


def _do(union: Union, *operations: Operation) -> None:
    for _user, name, *arguments in operations:
        assert Interpreter(union).run(str(name), tuple(arguments))[0] == "ok"


def _view(union: Union) -> dict[bytes, Facts]:
    """All that is seen; times of now are of no interest, nor how many links a directory is said to have."""
    left_out: Facts = {"mtime": None, "d_ino right": None}
    facts = snapshots.facts(union.snapshot())
    return {
        path: {**entry, **left_out, **({"nlink": None, "size": None} if entry["type"] == "d" else {})}
        for path, entry in facts.items()
    }


def _die_at(number: int, action: Callable[[], object]) -> bool:
    """Do it in a child that dies at its changing system call of that number; False: it lived."""
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, DEAD)
        return status == DEAD
    try:
        calls = itertools.count()

        def dying(call: Callable[..., object]) -> Callable[..., object]:
            def instead(*args: object, **kwargs: object) -> object:
                if next(calls) == number:
                    os._exit(DEAD)
                return call(*args, **kwargs)

            return instead

        for name in CHANGING:
            setattr(os, name, dying(getattr(os, name)))
        action()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("name", CASES)
def test_old_or_new(open_plain: Callable[[], Union], name: str) -> None:
    """Whichever system call it dies at."""
    case = CASES[name]
    states = []
    for operations in (case.before, (*case.before, case.operation)):
        union = open_plain()
        _do(union, *operations)
        states.append(_view(union))
        assert _view(union.reopen()) == states[-1]
    for number in itertools.count():
        union = open_plain()
        _do(union, *case.before)
        died = _die_at(number, lambda union=union: _do(union, case.operation))  # type: ignore[misc]
        assert _view(union.reopen()) in states, f"dead at call {number}"
        assert union.leftovers() == []
        assert not os.path.exists(union.work / "pending") or os.listdir(union.work / "pending") == []
        if not died:
            assert number > 2
            return


def test_the_kernel_reads_the_results(open_plain: Callable[[], Union]) -> None:
    """What is there when nothing is under way is an upper like any other."""
    for case in CASES.values():
        union = open_plain()
        _do(union, *case.before, case.operation)
        ours = union.snapshot()
        assert snapshots.facts(union.kernel_snapshot()).keys() == snapshots.facts(ours).keys()


@pytest.fixture
def interrupted(open_plain: Callable[[], Union]) -> Path:
    """The work directory of an exchange that died half way; `moved` lies between the names."""
    for number in itertools.count():
        union = open_plain()
        assert _die_at(number, lambda union=union: _do(union, CASES["exchange of files"].operation))  # type: ignore[misc]
        union.close_all_layers()
        if os.path.exists(union.work / "pending/moved"):
            return union.work
    raise AssertionError


def test_an_upper_changed_since_is_refused(interrupted: Path, open_plain: Callable[[], Union]) -> None:
    """Nothing is guessed and nothing lost."""
    upper = interrupted.parent / "upper"
    for name in ("d/f", "e/g"):
        (upper / name).write_bytes(b"by somebody else")
    moved = (interrupted / "pending/moved").read_bytes()
    lower = open_plain()
    options = lower.overlay.options
    lower.close_all_layers()
    with pytest.raises(LayerError, match="an interrupted rename cannot be ended"):
        Overlay.open(replace(options, upper=os.fsencode(upper), work=os.fsencode(interrupted)))
    assert (interrupted / "pending/moved").read_bytes() == moved
