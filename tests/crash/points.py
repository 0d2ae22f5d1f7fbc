"""Single operations to die in: what was there before, and the one system call under way."""

from dataclasses import dataclass, field

from tests import rawcalls, trees
from tests.oracle.operations import Operation

BIG = b"lower" * 60_000


@dataclass(frozen=True, kw_only=True)
class Point:
    """`before` is done and unmounted cleanly; the daemon then dies during `operation`. `counted`: the links
    of files are compared, too; not where they are kept where the kernel does not look for them.
    """

    lower: trees.Tree
    operation: Operation
    before: tuple[Operation, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    counted: bool = True


_FILE = trees.File(
    BIG, mode=0o4750, uid=1000, gid=2000, xattrs={b"user.k": b"v", trees.CAPABILITY: trees.NET_RAW}
)
# Without a capability: dropping it is a request of its own before chown and truncate.
_PLAIN = {"d/f": trees.File(BIG, mode=0o640, uid=1000, gid=2000, xattrs={b"user.k": b"v"})}
_ONE = {"d/f": _FILE, "d/g": trees.File(b"g", mode=0o600)}
_TREE = {**_ONE, "d/sub/x": trees.File(b"x"), "e": trees.Dir()}
# Nothing has to be changed in its copy: made with its mode, copied in one piece.
_SMALL = {"d/s": trees.File(b"small" * 600, mode=0o644)}
_LINKS = {"a": _FILE, "b": trees.Link("a")}

POINTS = {
    "chmod": Point(lower=_ONE, operation=(0, "chmod", b"d/f", 0o700)),
    "chown under metacopy": Point(
        lower=_PLAIN, operation=(0, "chown", b"d/f", 5, 6), options={"metacopy": "on", "redirect_dir": "on"}
    ),
    "chmod of a plain file": Point(lower=_SMALL, operation=(0, "chmod", b"d/s", 0o600)),
    "setxattr": Point(lower=_ONE, operation=(0, "setxattr", b"d/f", b"user.new", b"value", 0)),
    "truncate": Point(lower=_PLAIN, operation=(0, "truncate", b"d/f", 1000)),
    "copy-up of links": Point(lower=_LINKS, operation=(0, "chmod", b"b", 0o700), options={"index": "on"}),
    "link": Point(lower=_LINKS, operation=(0, "link", b"a", b"c"), options={"index": "on"}),
    "unlink": Point(lower=_ONE, operation=(0, "unlink", b"d/f")),
    "unlink one of links": Point(
        lower=_LINKS,
        before=((0, "chmod", b"a", 0o600),),
        operation=(0, "unlink", b"b"),
        options={"index": "on"},
    ),
    "unlink one of links in the lower": Point(
        lower=_LINKS, operation=(0, "unlink", b"b"), options={"index": "on"}, counted=False
    ),
    "unlink one of links under metacopy": Point(
        lower=_LINKS,
        operation=(0, "unlink", b"b"),
        options={"index": "on", "metacopy": "on", "redirect_dir": "on"},
    ),
    "rename over one of links": Point(
        lower={**_LINKS, "c": trees.File(b"c")},
        operation=(0, "rename", b"c", b"b", 0),
        options={"index": "on"},
        counted=False,
    ),
    "rmdir over whiteouts": Point(
        lower={"d/f": trees.File(b"f")}, before=((0, "unlink", b"d/f"),), operation=(0, "rmdir", b"d")
    ),
    "mkdir over a whiteout": Point(
        lower={"d/f": trees.File(b"f")},
        before=((0, "unlink", b"d/f"), (0, "rmdir", b"d")),
        operation=(0, "mkdir", b"d", 0o700),
    ),
    "create over a whiteout": Point(
        lower=_ONE, before=((0, "unlink", b"d/g"),), operation=(0, "mknod", b"d/g", 0o100640, 0)
    ),
    "rename": Point(lower=_ONE, operation=(0, "rename", b"d/f", b"d/new", 0)),
    "rename over": Point(lower=_ONE, operation=(0, "rename", b"d/f", b"d/g", 0)),
    "rename of a directory": Point(
        lower=_TREE, operation=(0, "rename", b"d", b"e/moved", 0), options={"redirect_dir": "on"}
    ),
    "exchange": Point(
        lower=_TREE,
        operation=(0, "rename", b"d", b"e", rawcalls.RENAME_EXCHANGE),
        options={"redirect_dir": "on"},
    ),
}
