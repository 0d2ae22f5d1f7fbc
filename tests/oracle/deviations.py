"""Where ours may differ from kernel overlayfs, each with its reason. Nothing else is forgiven.

The table is the documentation: a difference that is not in it fails the comparison.
"""

import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from tests import trees
from tests.oracle.operations import Operation, Outcome
from tests.oracle.stacks import StackSpec
from tests.snapshots import Facts, Status

_SHOWN_SETID = str.maketrans("sS", "x-")
# Later than every time a test sets by hand, earlier than every "now".
_NOW_NS = time.time_ns() - 3600 * 10**9


class Deviation(NamedTuple):
    """`fact` takes it out of an entry's facts, `outcome` out of an operation's result, `change` out of how
    a step changed a path; `excuse` forgives a pair of outcomes; `applies` says where.
    """

    name: str
    reason: str
    applies: Callable[[StackSpec, str], bool] = lambda stack, ours: True
    fact: Callable[[bytes, Facts], Facts] | None = None
    outcome: Callable[[Operation, Outcome], Outcome] | None = None
    change: Callable[[object, Status | str], object] | None = None
    excuse: Callable[[Operation, Outcome, Outcome], bool] | None = None


def _without_directory_numbers(_path: bytes, facts: Facts) -> Facts:
    return {**facts, "nlink": None, "size": None} if facts["type"] == "d" else facts


def _without_block_size(_path: bytes, facts: Facts) -> Facts:
    return {**facts, "size": None} if facts["type"] == "b" else facts


def _with_now(_path: bytes, facts: Facts) -> Facts:
    mtime = facts["mtime"]
    return {**facts, "mtime": "now"} if isinstance(mtime, int) and mtime > _NOW_NS else facts


def _without_mtime_of_files(_path: bytes, facts: Facts) -> Facts:
    return {**facts, "mtime": None} if facts["type"] == "-" else facts


def _without_change_of_files(change: object, after: Status | str) -> object:
    moved = change in {"mtime moved", "mtime kept"}
    return "there" if moved and isinstance(after, Status) and stat.S_ISREG(after.mode) else change


def _without_setid_of_files(_path: bytes, facts: Facts) -> Facts:
    if facts["type"] != "-":
        return facts
    return {**facts, "mode": oct(int(str(facts["mode"]), 8) & ~(stat.S_ISUID | stat.S_ISGID))}


def _shown_without_setid(_operation: Operation, outcome: Outcome) -> Outcome:
    """The mode of a file as ls -l writes it, which is the first thing a stat's outcome says."""
    seen = outcome[1] if isinstance(outcome[1], tuple) else ()
    if not seen or not isinstance(seen[0], str) or not seen[0].startswith("-"):
        return outcome
    return (outcome[0], (seen[0].translate(_SHOWN_SETID), *seen[1:]))


def _nlink(outcome: Outcome) -> int:
    """The link count in a stat's outcome, 0 when there is none."""
    seen = outcome[1] if isinstance(outcome[1], tuple) else ()
    return seen[1] if len(seen) > 1 and isinstance(seen[1], int) else 0


TABLE = (
    Deviation(
        "directory nlink and size",
        "The kernel answers 1 for a merged directory and the real directory's count for others; the "
        "size is that of whichever real directory is on top, which depends on how its file system "
        "packs names.",
        fact=_without_directory_numbers,
    ),
    Deviation(
        "size of block devices",
        "The kernel's generic attributes of a block special file are not the file system's to decide.",
        fact=_without_block_size,
    ),
    Deviation(
        "times of now",
        "The two sides do the same thing a moment apart. That a time changed at all is compared, step "
        "by step; every time set by hand or kept from a lower is compared to the nanosecond.",
        fact=_with_now,
    ),
    Deviation(
        "st_ino, st_dev, st_blocks, atime, ctime",
        "Numbers of the layers' file systems. Compared instead: that st_ino equals d_ino, is shared "
        "by the same paths, and stays across copy-up and remount. atime and ctime of lower files are "
        "not kept by overlayfs.",
    ),
    Deviation(
        "mtime of files under metacopy",
        "The kernel moves a file's mtime when it brings the data up behind an earlier metadata-only "
        "copy-up, as ovl_copy_up_meta_inode_data() does not set it back; ours keeps it, since nothing "
        "was written.",
        applies=lambda stack, _ours: stack.metacopy == "on",
        fact=_without_mtime_of_files,
        change=_without_change_of_files,
    ),
    Deviation(
        "d_ino of broken hard links under pyfuse3",
        "Two inodes with one st_ino, as a lower's hard links are without an index, need two nodeids, "
        "and pyfuse3 can only put the nodeid into a directory entry. lstat tells the right number.",
        applies=lambda stack, ours: stack.index == "off" and "pyfuse3" in ours,
        fact=lambda _path, facts: {**facts, "d_ino right": True} if facts["links"] else facts,
    ),
    Deviation(
        "user.overlay.* xattrs",
        "The kernel lets a file's owner set these on a mount whose marks are trusted.overlay.*; ours "
        "stores them escaped, as it reads them as marks in lower layers and a user must not forge "
        "one. No sequence uses them; tests/union has the rule.",
    ),
    Deviation(
        "copy-up at the first write",
        "An engine whose opens cost nothing is not told of them: an open for writing that writes "
        "nothing leaves the file in the lower, as a lower hard link without an index shows. "
        "LateCopyVfs makes sequences comparable: it changes nothing in particular after such an open.",
    ),
    Deviation(
        "changing an unlinked lower file",
        "The kernel cannot copy up a file whose last name is gone: fchmod and the like on a "
        "descriptor that still reads the lower file give EEXIST, from the whiteout. Ours changes it, "
        "as other file systems do; the descriptor is then closed on both sides. A directory that another "
        "has replaced it copies up over that other one, which is lost; there both close instead.",
    ),
    Deviation(
        "st_nlink of an unlinked open file",
        "The kernel answers with the lower file's own count when it was never copied up. Ours says one "
        "less, and so 0 for a last name, as every file system does and as programs test for.",
        excuse=lambda operation, oracle, ours: (
            operation[1] == "fstat" and _nlink(oracle) >= 1 and _nlink(ours) == _nlink(oracle) - 1
        ),
    ),
    Deviation(
        "removing an ACL that is not there",
        "The kernel answers ENODATA while the file is a lower's, and success once it is an upper's. "
        "Which of a linked file's names, and so which parents, a copy-up brings along is not told by "
        "FUSE, which knows inodes alone.",
        excuse=lambda operation, oracle, ours: (
            operation[1] == "removexattr"
            and operation[3] in {trees.ACL_ACCESS, trees.ACL_DEFAULT}
            and {oracle, ours} == {("ok", None), ("error", "ENODATA")}
        ),
    ),
    Deviation(
        "times after a rename that failed",
        "The kernel clears whiteouts and sets marks before it finds that a rename cannot be, which "
        "moves directories' mtime. Ours looks first and then changes nothing.",
    ),
    Deviation(
        "copied up, then refused",
        "The kernel copies a file up before its file system refuses a kind of xattr, or before a redirect "
        "turns out too long. Ours looks first. In all else a failed operation leaves no name in the upper "
        "that it does not leave in the oracle's, which each step compares.",
    ),
    Deviation(
        "removing a directory of xattr whiteouts",
        "The kernel's check for emptiness takes a lower's xattr whiteouts for entries and answers "
        "ENOTEMPTY; ours removes the directory. No sequence has them; test_union compares a tree.",
    ),
    Deviation(
        "set-id bits and capabilities after a write through a mapping",
        "The kernel keeps them, as it does not notice such a write. A FUSE engine that is not told "
        "whether a write came from a mapping drops them, as for write(2): the safe side. In a sequence "
        "only root, whose writes keep set-id bits, writes so, and drops the capability itself.",
    ),
    Deviation(
        "set-id bits of files with data=passthrough",
        "The kernel writes to the layer's file without asking, so set-id bits go when an ordinary user "
        "opens a file for writing, and cannot be set while one has it open (decision 0013). The oracle's "
        "go at the write.",
        applies=lambda _stack, ours: "passthrough" in ours,
        fact=_without_setid_of_files,
        outcome=_shown_without_setid,
    ),
    Deviation(
        "set-id bits after chown(-1, -1)",
        "FUSE's kernel part sends nothing for it when the daemon said that it drops set-id bits itself. "
        "A chown in a sequence names an owner or a group.",
    ),
    Deviation(
        "SEEK_HOLE over preallocated blocks",
        "ext4 answers by what its page cache happens to hold. A sequence uses either fallocate or seek.",
    ),
    Deviation(
        "read-only mappings made before a copy-up",
        "The kernel's keep showing the lower file (documented non-standard behaviour); ours show the "
        "new content. Sequences map only descriptors open for writing, or fresh ones.",
    ),
)


def normalise_facts(path: bytes, facts: Facts, stack: StackSpec, ours: str) -> Facts:
    """An entry's facts with all deviations taken out."""
    for row in TABLE:
        if row.fact is not None and row.applies(stack, ours):
            facts = row.fact(path, facts)
    return facts


def normalise_outcome(operation: Operation, outcome: Outcome, stack: StackSpec, ours: str) -> Outcome:
    """An operation's outcome with all deviations taken out."""
    for row in TABLE:
        if row.outcome is not None and row.applies(stack, ours):
            outcome = row.outcome(operation, outcome)
    return outcome


def excused(operation: Operation, oracle: Outcome, ours: Outcome) -> bool:
    """Whether two outcomes that differ may."""
    return any(row.excuse is not None and row.excuse(operation, oracle, ours) for row in TABLE)


def kernel_stopped_half_way(name: str, outcome: Outcome) -> bool:
    """The kernel's renames that fail late have moved the times of their directories by then."""
    return name == "rename" and outcome in {("error", "EXDEV"), ("error", "ENOTEMPTY")}


_CANNOT_COPY_UP = {("error", "EEXIST"), ("error", "ENOTDIR")}
_COPYING_UP = {"fchmod", "fchown", "fsetxattr"}


def kernel_cannot(name: str, outcome: Outcome) -> bool:
    """The kernel's failure to copy up an unlinked file."""
    return name in _COPYING_UP and outcome in _CANNOT_COPY_UP


def kernel_must_not(name: str, removed: Callable[[], tuple[Outcome, Outcome]]) -> bool:
    """Copy up a removed lower directory: one that ours knows as `removed` and the kernel does not."""
    return name in _COPYING_UP and removed() == (("ok", False), ("ok", True))


def normalise_change(change: object, after: Status | str, stack: StackSpec, ours: str) -> object:
    """How a step changed a path, with all deviations taken out."""
    for row in TABLE:
        if row.change is not None and row.applies(stack, ours):
            change = row.change(change, after)
    return change
