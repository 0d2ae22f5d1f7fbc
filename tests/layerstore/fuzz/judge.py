"""What must be true after every hostile input, whatever became of it.

An error is one of the package's own, in one printable line; nothing outside the place was touched; no
descriptor, thread or temporary file is left; time and memory stayed bounded.
"""

import errno
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from layerstore.errors import LayerstoreError

SECONDS = 5.0  # of processor time
GROWTH = 160 << 20  # bytes of memory
# The machine's own refusals: no room, a file larger than the file system takes, xattrs it has no place for.
MACHINES = {errno.ENOSPC, errno.EFBIG, errno.EOPNOTSUPP, errno.ELOOP}
LINE = 3000

State = list[tuple[object, ...]]


def state(*tops: Path) -> State:
    """All that must not change of these trees."""
    found: State = []
    for top in tops:
        for directory, names, files in os.walk(top):
            for name in (".", *names, *files):
                path = os.path.join(directory, name)
                st = os.lstat(path)
                marks = tuple(
                    (key, os.getxattr(path, key, follow_symlinks=False))
                    for key in os.listxattr(path, follow_symlinks=False)
                )
                found.append(
                    (
                        path,
                        st.st_mode,
                        st.st_uid,
                        st.st_gid,
                        st.st_nlink,
                        st.st_size,
                        st.st_mtime_ns,
                        st.st_ctime_ns,
                        marks,
                    )
                )
    return found


class Remarks(logging.Handler):
    """What the verbs say beside their results, to be seen by the user: kept for the judgement."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Judge:
    """Watches `where`: inputs may change `place` below it and nothing else."""

    where: Path
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    largest: int = 0
    watched: list[Path] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def place(self) -> Path:
        return self.where / "place"

    def prepare(self) -> None:
        outside = self.where / "outside"
        (outside / "sub").mkdir(parents=True)
        (outside / "f").write_bytes(b"alive")
        (outside / "sub/link").symlink_to("../f")
        (self.where / "cwd").mkdir()
        (self.where / "tmp").mkdir()
        self.place.mkdir()
        self.watched = [outside, self.where / "cwd", self.where / "tmp"]

    @contextmanager
    def case(self, seed: int, data: bytes) -> Iterator[None]:
        """Run one case in the block; a failed one leaves its input in a file and says where."""
        before = state(*self.watched)
        names, descriptors = sorted(os.listdir(self.where)), len(os.listdir("/proc/self/fd"))
        threads = set(threading.enumerate())  # a test before may have left a timer
        started, memory = time.process_time(), _memory(reset=True)
        try:
            try:
                yield
                self.outcomes["taken"] = self.outcomes.get("taken", 0) + 1
            except LayerstoreError as error:
                self._judge_message(error)
            except OSError as error:
                if error.errno not in MACHINES:
                    raise AssertionError(f"not a refusal: {error!r}") from error
                self.outcomes["machine"] = self.outcomes.get("machine", 0) + 1
            self._judge_remarks()
            self._judge_cost(time.process_time() - started, _memory() - memory)
            assert state(*self.watched) == before, "something outside was touched"
            assert sorted(os.listdir(self.where)) == names, "something was put beside the place"
            assert len(os.listdir("/proc/self/fd")) == descriptors, "descriptors are left open"
            assert not set(threading.enumerate()) - threads, "a thread is left"
        except BaseException as error:
            kept = keep(data)
            error.add_note(f"seed {seed}; the input is kept in {kept}")
            raise

    def _judge_remarks(self) -> None:
        for line in self.remarks.lines:
            assert line.isprintable(), f"not one printable line: {line!r}"
            assert 0 < len(line) < LINE, f"a line of {len(line)} characters"
        self.remarks.lines.clear()

    def _judge_message(self, error: LayerstoreError) -> None:
        kind, text = type(error).__name__, str(error)
        self.outcomes[kind] = self.outcomes.get(kind, 0) + 1
        assert text.isprintable(), f"not one printable line: {text!r}"
        assert 0 < len(text) < LINE, f"a line of {len(text)} characters"

    def _judge_cost(self, seconds: float, growth: int) -> None:
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, growth)
        assert seconds < SECONDS, f"{seconds:.1f} s"
        assert growth < GROWTH, f"{growth >> 20} MiB"

    def report(self) -> str:
        total = sum(self.outcomes.values())
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        return f"{total} cases: {kinds}; slowest {self.slowest:.2f} s, largest {self.largest >> 20} MiB"


def judge_tree(root: Path) -> int:
    """Of an unpacked layer: one file system, hard links within, no mark that leads an overlay elsewhere.
    Returns how many levels deep it is.
    """
    levels = 0
    names: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], int] = {}
    device = os.lstat(root).st_dev
    pending = [os.fsencode(root)]
    while pending:  # not os.walk, which recurses
        for entry in os.scandir(pending.pop()):
            st = entry.stat(follow_symlinks=False)
            assert st.st_dev == device, entry.path
            if stat.S_ISDIR(st.st_mode):
                pending.append(entry.path)
                levels = max(levels, entry.path.count(b"/"))
            else:
                names[st.st_dev, st.st_ino] = names.get((st.st_dev, st.st_ino), 0) + 1
                links[st.st_dev, st.st_ino] = st.st_nlink
            for key in os.listxattr(entry.path, follow_symlinks=False):
                _judge_mark(entry.path, key)
    assert names == links, "a hard link that leaves the root"
    return levels


def _judge_mark(path: bytes, key: str) -> None:
    for namespace in ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."):
        if key.startswith(namespace) and not key.startswith(namespace + "overlay."):
            assert key == namespace + "opaque", f"{path!r} has {key}"
            assert os.getxattr(path, key, follow_symlinks=False) == b"y", f"{path!r} has another {key}"


def keep(data: bytes) -> Path:
    """Where the input lies for another look (.cache is not committed)."""
    directory = Path(__file__).resolve().parents[3] / ".cache/fuzz"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def _memory(*, reset: bool = False) -> int:
    """This process's resident memory: the highest since the last reset, or with `reset` that of now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:" if reset else "VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
