"""Chance: layer stacks, and the next operation for the tree as it is now.

All choices come from a `random.Random` that Hypothesis seeds: evenly spread, which its own draws of
small values are not. Shrinking is done on the printed sequence instead; see minimise.py.
"""

import os
import random
import stat
from collections.abc import Callable, Mapping, Sequence

from tests import rawcalls, trees
from tests.oracle.operations import HANDLE_OPERATIONS, Operation
from tests.oracle.stacks import StackSpec

# The longest name; a shorter one where directories can move, as a redirect over 256 bytes is an error that
# kernel and union may meet at different moments (tests/union has the rule itself).
NAMES = {
    redirect_dir: (b"a", b"b", b"c", b"d", b"\xff\xfe", b"n" * length)
    for redirect_dir, length in (("off", 255), ("on", 60))
}
# What programs may make besides; in a literal lower the one side would take it for a mark.
MADE_NAMES = {key: (*names, *names, *names, b".wh.a", b".wh..wh..opq") for key, names in NAMES.items()}
# None leads out of the mount: what lies there is not under test.
LINK_TARGETS = (b"a", b"b/c", b"d/../a", b"/nowhere/x", b"t" * 300)
TOO_LONG = b"n" * 256
MODES = (0o644, 0o755, 0o600, 0o777, 0o000, 0o444, 0o2775, 0o2666, 0o4755, 0o1777)
IDS = (0, 1000, 1001, 2000)
# Not (-1, -1): see deviations.py.
OWNERS = tuple((uid, gid) for uid in (-1, *IDS) for gid in (-1, *IDS) if (uid, gid) != (-1, -1))
TIMES = (0, 1_000_000_001, 1_234_567_890_123_456_789, 999_999_999)
SLOTS = (0, 1, 2)
CASTING = (0, 0, 0, 1, 2)  # which user acts: root mostly

FLAGS = tuple(
    access | more
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
    for more in (
        0,
        os.O_CREAT,
        os.O_CREAT | os.O_EXCL,
        os.O_TRUNC,
        os.O_CREAT | os.O_TRUNC,
        os.O_APPEND,
        os.O_CREAT | os.O_APPEND,
        os.O_DIRECTORY,
        os.O_NOFOLLOW,
    )
)

ACLS = (
    trees.acl(("u", 6), ("user", 1000, 6), ("g", 4), ("m", 6), ("o", 0)),
    trees.acl(("u", 7), ("group", 2000, 7), ("g", 5), ("m", 7), ("o", 5)),
    trees.acl(("u", 6), ("g", 4), ("o", 4)),
)
XATTRS: tuple[tuple[bytes, tuple[bytes, ...]], ...] = (
    (b"user.one", (b"", b"value", b"v" * 300)),
    (b"trusted.two", (b"secret",)),
    (b"trusted.overlay.opaque", (b"y",)),
    (b"trusted.overlay.foo", (b"bar",)),
    (b"trusted.overlay.overlay.opaque", (b"y",)),
    (b"security.capability", (trees.NET_RAW,)),
    (trees.ACL_ACCESS, ACLS),
    (trees.ACL_DEFAULT, ACLS),
)
XATTR_NAMES = tuple(name for name, _ in XATTRS)


def random_stack(chance: random.Random) -> StackSpec:
    """1 to 3 literal lowers, and up to 2 more that the kernel made from random operations."""
    redirect_dir, metacopy = chance.choice((("off", "off"), ("on", "off"), ("on", "on")))
    names: Sequence[bytes] = NAMES[redirect_dir]
    lowers: list[dict[bytes, trees.Entry]] = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        lowers.insert(0, _random_layer(chance, lowers, names))
    known = sorted({path for tree in lowers for path in tree}) or [b"a"]
    names = MADE_NAMES[redirect_dir]
    return StackSpec(
        lowers=tuple(lowers),
        grown=tuple(_random_growth(chance, known, names) for _ in range(chance.choice((0, 0, 1, 2)))),
        redirect_dir=redirect_dir,
        metacopy=metacopy,
        index=chance.choice(("off", "on")),
        root_mode=chance.choice((0o755, 0o777)),
    )


def _random_layer(
    chance: random.Random, below: Sequence[Mapping[bytes, trees.Entry]], names: Sequence[bytes]
) -> dict[bytes, trees.Entry]:
    tree: dict[bytes, trees.Entry] = {}
    for _ in range(chance.randint(0, 12)):
        known = {b"", *_directories(tree), *(_directories(below[0]) if below else ())}
        path = os.path.join(chance.choice(sorted(known)), chance.choice(names))
        parents = _parents(path)
        if path in tree or path.count(b"/") > 2:
            continue
        if not all(isinstance(tree.get(parent, trees.Dir()), trees.Dir) for parent in parents):
            continue
        for parent in parents:
            tree.setdefault(parent, trees.Dir())
        files = [known for known, entry in tree.items() if isinstance(entry, trees.File)]
        if files and chance.random() < 0.12:
            tree[path] = trees.Link(chance.choice(files))
        else:
            tree[path] = _random_entry(chance, _merges(path, tree, below))
    return tree


def _directories(tree: Mapping[bytes, trees.Entry]) -> list[bytes]:
    return [path for path, entry in tree.items() if isinstance(entry, trees.Dir)]


def _parents(path: bytes) -> list[bytes]:
    found = []
    while path := os.path.dirname(path):
        found.append(path)
    return found


def well_formed(lowers: Sequence[trees.Tree]) -> bool:
    """Whether all whiteouts are where overlays put them; elsewhere the kernel's answer is nobody's rule."""
    plain = [{os.fsencode(path): entry for path, entry in tree.items()} for tree in lowers]
    return all(
        _merges(path, tree, plain[number + 1 :])
        for number, tree in enumerate(plain)
        for path, entry in tree.items()
        if isinstance(entry, trees.Whiteout)
    )


def _merges(
    path: bytes, tree: Mapping[bytes, trees.Entry], below: Sequence[Mapping[bytes, trees.Entry]]
) -> bool:
    """Whether a whiteout at `path` sits in merged directories only, where overlays make them."""
    if not below:
        return False
    for parent in _parents(path):
        ours, theirs = tree.get(parent, trees.Dir()), below[0].get(parent)
        if not isinstance(theirs, trees.Dir) or not isinstance(ours, trees.Dir) or ours.opaque:
            return False
    return True


def _random_entry(chance: random.Random, whiteout_fits: bool) -> trees.Entry:
    kind = chance.choice("fffffdddddlswwo" if whiteout_fits else "fffffddddls")
    if kind == "w":
        # Not of the xattr form: see deviations.py.
        return trees.Whiteout()
    mode, uid, gid = chance.choice(MODES), chance.choice(IDS), chance.choice(IDS)
    if kind == "s":
        return chance.choice((trees.fifo(mode), trees.socket(mode), trees.char_device(1, 3, mode)))
    if kind == "l":
        target = chance.choice(LINK_TARGETS)
        return trees.Symlink(target, uid=uid, gid=gid, xattrs=chance.choice(_SYMLINK_XATTRS))
    if kind == "f":
        data, holes = chance.choice((b"", b"lower", b"l" * 5000)), chance.choice((0, 0, 70000))
        xattrs = chance.choice(_FILE_XATTRS)
        return trees.File(data, holes=holes, mode=mode, uid=uid, gid=gid, xattrs=xattrs)
    opaque = "y" if kind == "o" else ""
    return trees.Dir(opaque=opaque, mode=mode, uid=uid, gid=gid, xattrs=chance.choice(_DIR_XATTRS))


_SYMLINK_XATTRS: tuple[trees.Xattrs, ...] = ({}, {}, {b"trusted.two": b"lower"})
_COMMON_XATTRS = (*_SYMLINK_XATTRS, {}, {b"user.one": b"lower"}, {trees.ACL_ACCESS: ACLS[0]})
_FILE_XATTRS = (*_COMMON_XATTRS, {trees.CAPABILITY: trees.NET_RAW})
_DIR_XATTRS = (*_COMMON_XATTRS, {trees.ACL_DEFAULT: ACLS[1]})


def _random_growth(
    chance: random.Random, known: Sequence[bytes], names: Sequence[bytes]
) -> tuple[Operation, ...]:
    def one() -> Operation:
        path = chance.choice(known)
        match chance.randint(0, 6):
            case 0 | 1:
                return (0, "rename", path, chance.choice((*known, *names)), 0)
            case 2:
                return (0, "unlink", path)
            case 3:
                return (0, "rmdir", path)
            case 4:
                return (0, "chmod", path, 0o711)
            case 5:
                return (0, "mkdir", chance.choice((path, *names)), 0o755)
        return (0, "truncate", path, 3)

    return tuple(one() for _ in range(chance.randint(0, 8)))


class Drawer:
    """Draws arguments that have a chance to mean something: mostly paths that exist, slots that are open."""

    def __init__(
        self, chance: random.Random, tree: Mapping[bytes, int], held: Sequence[int], names: Sequence[bytes]
    ) -> None:
        self._chance = chance
        self.one = chance.choice
        self.number = chance.randint
        self._held = held
        self._names = names
        self._paths = sorted(path for path in tree if path) or [b"a"]
        self._dirs = sorted(path for path, mode in tree.items() if stat.S_ISDIR(mode)) or [b""]
        self._files = sorted(path for path, mode in tree.items() if stat.S_ISREG(mode))

    def slot(self) -> int:
        """Mostly one that is open."""
        return self.one(self._held) if self._held and self._chance.random() < 0.95 else self.one(SLOTS)

    def path(self) -> bytes:
        """Mostly one that is there."""
        return self.one(self._paths) if self._chance.random() < 0.85 else self.new_path()

    def any_path(self) -> bytes:
        return self.one((self.file, self.path, self.new_path))()

    def file(self) -> bytes:
        return self.one(self._files) if self._files and self._chance.random() < 0.85 else self.path()

    def directory(self) -> bytes:
        return self.one(self._dirs) if self._chance.random() < 0.9 else self.path()

    def new_path(self) -> bytes:
        """A name in a directory; rarely a name too long, or below something that is no directory."""
        unlikely = self._chance.random()
        if unlikely < 0.03:
            return os.path.join(self.one(self._dirs), TOO_LONG)
        if unlikely < 0.06:
            return os.path.join(self.one(self._paths), b"a")
        shallow = [path for path in self._dirs if path.count(b"/") < 3]
        return os.path.join(self.one(shallow), self.one(self._names))

    def data(self) -> bytes:
        return self.one((b"x", b"new", b"0123456789", b"w" * 4096, b"z" * 9000))

    def offset(self) -> int:
        return self.one((0, 0, 1, 4, 100, 4095, 8192, 100_000))

    def xattr(self) -> tuple[bytes, bytes]:
        name, values = self.one(XATTRS)
        return name, self.one(values)


NODES = (
    (stat.S_IFIFO | 0o644, 0),
    (stat.S_IFCHR | 0o600, 259),
    (stat.S_IFCHR | 0o600, 0),
    (stat.S_IFREG | 0o640, 0),
)
RENAMING = (0, 0, 0, rawcalls.RENAME_NOREPLACE, rawcalls.RENAME_EXCHANGE, rawcalls.RENAME_WHITEOUT)

# How each operation's arguments are drawn; "open " is an open that mostly succeeds.
FAMILIES: dict[str, dict[str, Callable[[Drawer], tuple[object, ...]]]] = {
    "names": {
        "mkdir": lambda d: (d.new_path(), d.one(MODES)),
        "rmdir": lambda d: (d.one((d.directory(), d.path())) or b"a",),
        "unlink": lambda d: (d.path(),),
        "symlink": lambda d: (d.one(LINK_TARGETS), d.new_path()),
        "link": lambda d: (d.path(), d.new_path()),
        "mknod": lambda d: (d.new_path(), *d.one(NODES)),
        "bind": lambda d: (d.new_path(),),
    },
    "rename": {
        "rename": lambda d: (d.path(), d.one((d.path(), d.new_path())), d.one(RENAMING)),
    },
    "open": {
        "open": lambda d: (d.one(SLOTS), d.any_path(), d.one(FLAGS), d.one(MODES)),
        "open ": lambda d: (d.one(SLOTS), d.file(), d.one((os.O_RDONLY, os.O_RDWR)), 0),
        "close": lambda d: (d.slot(),),
    },
    "data": {
        "read": lambda d: (d.slot(), d.one((5, 10000))),
        "write": lambda d: (d.slot(), d.data()),
        "pread": lambda d: (d.slot(), d.one((5, 10000)), d.offset()),
        "pwrite": lambda d: (d.slot(), d.data(), d.offset()),
        "ftruncate": lambda d: (d.slot(), d.offset()),
        "fsync": lambda d: (d.slot(),),
        "cat": lambda d: (d.file(),),
        "truncate": lambda d: (d.file(), d.offset()),
        "map_read": lambda d: (d.slot(), d.offset(), 5000),
        "map_write": lambda d: (d.slot(), d.offset(), d.data()),
        "fallocate": lambda d: (d.slot(), d.one((0, 1, 3)), d.offset(), d.one((1, 4096, 100_000))),
        "seek": lambda d: (d.slot(), d.one((d.offset(), -1)), d.one((os.SEEK_DATA, os.SEEK_HOLE))),
        "copy_range": lambda d: (d.slot(), d.offset(), d.slot(), d.offset(), 5000),
        "tmpfile": lambda d: (d.directory(), d.one(MODES), d.data(), d.one((b"", d.new_path()))),
    },
    "metadata": {
        "chmod": lambda d: (d.path(), d.one(MODES)),
        "chown": lambda d: (d.path(), *d.one(OWNERS)),
        "utimens": lambda d: (d.path(), d.one(TIMES), d.one(TIMES), d.one((True, False))),
        "touch": lambda d: (d.path(),),
        "fchmod": lambda d: (d.slot(), d.one(MODES)),
        "fchown": lambda d: (d.slot(), d.one(IDS), d.one(IDS)),
        "umask": lambda d: (d.one((0o022, 0o077, 0)),),
    },
    "xattrs": {
        "setxattr": lambda d: (d.path(), *d.xattr(), d.one((0, 0, 1, 2))),
        "getxattr": lambda d: (d.path(), d.one(XATTR_NAMES)),
        "listxattr": lambda d: (d.path(),),
        "removexattr": lambda d: (d.path(), d.one(XATTR_NAMES)),
        "fsetxattr": lambda d: (d.slot(), *d.xattr()),
        "fgetxattr": lambda d: (d.slot(), d.one(XATTR_NAMES)),
    },
    "looking": {
        "stat": lambda d: (d.path(),),
        "lstat": lambda d: (d.path(),),
        "fstat": lambda d: (d.slot(),),
        "readlink": lambda d: (d.path(),),
        "access": lambda d: (d.path(), d.one((os.R_OK, os.W_OK, os.X_OK))),
        "readdir": lambda d: (d.directory(),),
        "seekdir": lambda d: (d.directory(), d.number(0, 9)),
        "fdlist": lambda d: (d.slot(),),
        "statfs": lambda d: (d.directory(),),
    },
}  # fmt: skip


def left_out(chance: random.Random, without: frozenset[str]) -> frozenset[str]:
    """What one sequence does without: see deviations.py on SEEK_HOLE."""
    return without | {chance.choice(("fallocate", "seek"))}


def next_operation(
    chance: random.Random,
    tree: Mapping[bytes, int],
    family: str,
    held: Mapping[int, Sequence[int]],
    without: frozenset[str],
    names: Sequence[bytes],
) -> Operation:
    """One operation of a family, for the tree as it is and the slots each user holds."""
    user = chance.choice(CASTING)
    drawer = Drawer(chance, tree, held.get(user, ()), names)
    rows = {name: row for name, row in FAMILIES[family].items() if name.strip() not in without}
    name = chance.choice(sorted(rows))
    if name == "map_write" and user:
        name = "map_read"  # see deviations.py
    if name in HANDLE_OPERATIONS and not held.get(user) and chance.random() < 0.9:
        name, rows = "open ", FAMILIES["open"]
    return (user, name.strip(), *rows[name](drawer))
