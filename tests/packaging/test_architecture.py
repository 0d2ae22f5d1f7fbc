"""Rules about the sources that no import contract can say: who may touch which library, word and name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("overlayfs_py/**/*.py"), *ROOT.glob("layerstore/**/*.py")])

# A library or a word, and the only places (path prefixes) that may know it.
ONLY_IN_IMPORTS = {
    "pyfuse3": ("overlayfs_py/engine/libfuse",),
    "ctypes": ("overlayfs_py/syscalls/", "layerstore/syscalls"),
    "tarfile": (),  # its extract* functions were bypassed too often; layerstore reads headers itself
}
ONLY_IN_STRINGS = {
    "trusted.overlay.": ("overlayfs_py/union/marks", "overlayfs_py/union/xattrs"),
    "user.overlay.": ("overlayfs_py/union/marks", "overlayfs_py/union/xattrs"),
    "user.fuseoverlayfs.": ("overlayfs_py/union/marks", "overlayfs_py/union/xattrs"),
}
BANNED_FILE_NAMES = {"utils.py", "util.py", "helpers.py", "manager.py", "handler.py", "misc.py", "common.py"}
FILE_LIMIT = 500
FUNCTION_LIMIT = 60


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that are documentation, not values."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
    return found


def string_values(tree: ast.Module) -> Iterator[str]:
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in skipped:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("module", ONLY_IN_IMPORTS)
def test_only_its_home_imports(module: str) -> None:
    """A library with a seam around it is imported behind that seam only."""
    homes = ONLY_IN_IMPORTS[module]
    strays = [
        relative(path)
        for path in SOURCES
        if not relative(path).startswith(homes or ("-",)) and module in imported_modules(tree_of(path))
    ]
    assert not strays, f"{module} is imported outside {homes}"


@pytest.mark.parametrize("mark", ONLY_IN_STRINGS)
def test_only_its_home_spells(mark: str) -> None:
    """The on-disk marks are spelled in one place."""
    homes = ONLY_IN_STRINGS[mark]
    strays = [
        relative(path)
        for path in SOURCES
        if not relative(path).startswith(homes)
        and any(mark in value for value in string_values(tree_of(path)))
    ]
    assert not strays, f"{mark!r} is spelled outside {homes}"


def test_no_file_named_after_nothing() -> None:
    """A file is named after the one idea in it."""
    assert not [relative(path) for path in SOURCES if path.name in BANNED_FILE_NAMES]


def test_files_and_functions_stay_small() -> None:
    """Hard stops: 500 lines a file, 60 a function; the aim is much lower."""
    large = []
    for path in SOURCES:
        lines = path.read_text().count("\n")
        if lines > FILE_LIMIT:
            large.append(f"{relative(path)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LIMIT:
                    large.append(f"{relative(path)}:{node.lineno} {node.name}: {length} lines")
    assert not large, "\n".join(large)


def test_no_work_is_left_for_later() -> None:
    """No TODO, FIXME or XXX in the sources: it is done or it is an issue."""
    word = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert not [relative(path) for path in SOURCES if word.search(path.read_text())]
