"""The shape of the code, where no import contract can say it: sizes; who may use which library or word."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from vulture import Vulture

from overlayfs_py.engine.libfuse.operations import HANDLERS
from overlayfs_py.engine.native import wire
from tests import wording

TOP = Path(__file__).parent.parent
PACKAGES = ("overlayfs_py", "layerstore")
FILE_LINES, FUNCTION_LINES = 500, 60
FILE_AIM, FUNCTION_AIM = 400, 26


def _sources(*under: str) -> list[Path]:
    return sorted(path for name in under for path in (TOP / name).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(TOP))


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{_name(path)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1


def _imports(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _strings(path: Path) -> Iterator[tuple[int, str]]:
    """String and bytes literals of the code: docstrings are prose and left out."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose and isinstance(node.value, str | bytes):
            value = node.value
            yield node.lineno, value if isinstance(value, str) else value.decode("latin-1")


def test_files_are_small() -> None:
    """No file over 500 lines; the report says which are over 400."""
    sizes = {_name(path): len(path.read_text().splitlines()) for path in _sources(*PACKAGES, "tests")}
    over = {name: size for name, size in sizes.items() if size > FILE_AIM}
    print(f"median {statistics.median(sizes.values())}; over {FILE_AIM}: {over}")
    assert not {name: size for name, size in sizes.items() if size > FILE_LINES}


def test_functions_are_short() -> None:
    """No function over 60 lines; nine of ten within 26, said in the report when not."""
    sizes = dict(entry for path in _sources(*PACKAGES) for entry in _functions(path))
    nine_of_ten = statistics.quantiles(sizes.values(), n=10)[-1]
    print(f"90 % of functions have up to {nine_of_ten} lines, the aim is {FUNCTION_AIM}")
    assert not {name: size for name, size in sizes.items() if size > FUNCTION_LINES}


MARKS = {
    # What is named: the files that may, as fnmatch patterns.
    "trusted.overlay.": ("overlayfs_py/union/marks.py", "overlayfs_py/union/xattrs.py"),
    "user.overlay.": ("overlayfs_py/union/marks.py", "overlayfs_py/union/xattrs.py"),
    "user.fuseoverlayfs.": ("overlayfs_py/union/marks.py", "overlayfs_py/union/xattrs.py"),
    ".wh.": ("overlayfs_py/union/marks.py", "layerstore/layer/whiteout.py"),
}


@pytest.mark.parametrize("mark", MARKS)
def test_marks_are_named_in_one_place(mark: str) -> None:
    """An on-disk mark is spelled only where it is read and written."""
    found = {
        f"{_name(path)}:{line}"
        for path in _sources(*PACKAGES)
        if _name(path) not in MARKS[mark]
        for line, text in _strings(path)
        if mark in text
    }
    assert not found


SEAMS = {
    # A library with a seam around it: the path prefixes behind that seam.
    "pyfuse3": ("overlayfs_py/engine/libfuse",),
    "ctypes": ("overlayfs_py/syscalls/",),
    "tarfile": (),  # its extraction was bypassed again and again: unpacking is ours, beneath a descriptor
}


@pytest.mark.parametrize("library", SEAMS)
def test_a_library_stays_behind_its_seam(library: str) -> None:
    """It is imported there and nowhere else."""
    strays = [
        _name(path)
        for path in _sources(*PACKAGES)
        if not _name(path).startswith(SEAMS[library]) and library in _imports(path)
    ]
    assert not strays


# What only the union may ask of a node or a stack: an engine that looks there knows what a layer is.
OF_LAYERS = {"fd_writable", "index", "lowers", "metacopy", "top", "upper"}


def test_engines_know_no_layers() -> None:
    """Engines and the service import of the union `union.overlay` alone, and look into no node's parts."""
    strays = []
    for path in _sources("overlayfs_py/engine", "overlayfs_py/service"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("overlayfs_py.union"):
                if node.module != "overlayfs_py.union.overlay":
                    strays.append(f"{_name(path)}:{node.lineno} {node.module}")
            elif isinstance(node, ast.Attribute) and node.attr in OF_LAYERS and "/engine/" in str(path):
                strays.append(f"{_name(path)}:{node.lineno} .{node.attr}")
    assert not strays


# What layerstore builds on. The rest of overlayfs_py may change without a look at layerstore.
GROUND = {
    *(f"overlayfs_py.{name}" for name in ("__version__", "errors", "options", "share", "streams")),
    *(f"overlayfs_py.union.{name}" for name in ("marks", "overlay", "reading")),
    *(
        f"overlayfs_py.service.{name}"
        for name in ("client", "ending", "keepers", "rundir", "subprocesses", "taking")
    ),
}


def _is_ground(module: str) -> bool:
    return module in GROUND or module.startswith("overlayfs_py.syscalls")


def test_layerstore_stands_on_the_ground_floor() -> None:
    """It imports of overlayfs_py what `GROUND` lists, and no more."""
    strays = []
    for path in _sources("layerstore"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("overlayfs_py"):
                continue
            module = str(node.module)
            found = [module] if _is_ground(module) else [f"{module}.{alias.name}" for alias in node.names]
            strays += [f"{_name(path)}:{node.lineno} {one}" for one in found if not _is_ground(one)]
    assert not strays


# Code that is called by name: handlers of requests, what pyfuse3 and click look for, a protocol's method.
CALLED_BY_NAME = ("__call__", "__dir__", "__getattr__", "format_commands", "format_help")


@pytest.mark.slow
def test_no_dead_code() -> None:
    """Every function, method and property has a use in the packages themselves, not only in tests."""
    finder = Vulture(ignore_names=list(CALLED_BY_NAME), ignore_decorators=["@*.command", "@click.*"])
    finder.scavenge([str(TOP / package) for package in PACKAGES])
    handlers = {row.handler for row in wire.OPS.values()} | set(HANDLERS)
    unused = [
        f"{_name(Path(item.filename))}:{item.first_lineno} {item.name}"
        for item in finder.get_unused_code()
        if item.typ in {"function", "method", "property", "class"} and item.name not in handlers
    ]
    assert not unused


# Words of other projects for what has a name already, and what to say.
BANNED = {
    r"tombstone\w*": "whiteout",
    r"deletion markers?": "whiteout",
    r"promot(?:e|es|ed|ing|ion)": "copy up",
    r"branch(?:es)?": "layer (a filesystem's), or path (a program's)",
    r"image names?": "reference",
    r"R[OW] (?:dir|branch)\w*": "lower, upper",
}


@pytest.mark.parametrize("word", BANNED)
def test_one_word_for_one_thing(word: str) -> None:
    """Kernel overlayfs's and OCI's own words, and only those."""
    texts = [*_sources(*PACKAGES), *(TOP / "docs").glob("*.md"), TOP / "README.md"]
    assert not wording.places(rf"\b{word}\b", BANNED[word], texts)


# Modules of the union and the engines that have no test file of their name, and why.
NO_MIRROR = {
    "overlayfs_py/engine/libfuse/engine.py": "one a process, on /dev/fuse: whatever has the fixture `engine`",
    "overlayfs_py/engine/libfuse/session.py": "its answers go to the kernel: the same tests",
}


def test_tests_mirror_modules() -> None:
    """Each module of the union and the engines has a test file of its name, in the same place below tests."""
    modules = [
        path for path in _sources("overlayfs_py/union", "overlayfs_py/engine") if path.stem != "__init__"
    ]
    mirrors = {
        _name(path): TOP / "tests" / path.parent.relative_to(TOP / "overlayfs_py") / f"test_{path.name}"
        for path in modules
    }
    assert {name for name, mirror in mirrors.items() if not mirror.exists()} == set(NO_MIRROR)


def test_speed_tricks_name_their_benchmarks() -> None:
    """`(bench: ROW; ROW)` in a comment or docstring of the union: each row is in docs/benchmarks.md."""
    rows = set(re.findall(r"^\| ([^|]+?) \|", (TOP / "docs/benchmarks.md").read_text(), re.MULTILINE))
    strays = []
    for path in _sources("overlayfs_py/union"):
        text = re.sub(r"\n\s*(?:# )?", " ", path.read_text())
        for named in re.findall(r"\bbench: ([^()]+)\)", text):
            strays += [f"{_name(path)}: {row}" for row in named.split("; ") if row not in rows]
    assert not strays


def test_no_catch_all_modules() -> None:
    """A module is named after its one idea."""
    vague = {"utils", "util", "helpers", "helper", "manager", "handler", "handlers", "common", "misc"}
    assert not [_name(path) for path in _sources(*PACKAGES, "tests") if path.stem in vague]


def test_no_work_is_left_for_later() -> None:
    """It is done, or it is an issue."""
    word = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert not [_name(path) for path in _sources(*PACKAGES) if word.search(path.read_text())]
