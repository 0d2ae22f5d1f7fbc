"""The stack a mount works on: its layers, what they can do, and the tables every operation shares.

`open_stack` checks what must hold before anything is mounted and says in one line which
directory is wrong; it leaves nothing open when it fails. `Stack.close` releases every
descriptor and lock.
"""

import fcntl
import os
import stat

from overlayfs_py.errors import InUse, LayerError, shown
from overlayfs_py.options import UnionOptions
from overlayfs_py.syscalls import openat
from overlayfs_py.syscalls.statfs import filesystem_type
from overlayfs_py.union import descriptors
from overlayfs_py.union.attr import IdMap, format_override
from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.inode import PLAIN_LIMIT, InodeNumbers
from overlayfs_py.union.layer import O_DIRFD, Layer, Real
from overlayfs_py.union.marks import OVERRIDES, TRUSTED, USER, Marks, get_xattr, list_xattrs, set_xattr
from overlayfs_py.union.node import Entry, Node
from overlayfs_py.union.origin import Origins
from overlayfs_py.union.pending import Pending
from overlayfs_py.union.probe import Capabilities, hiding, may_use_trusted, overrides_modes, probe_upper
from overlayfs_py.union.spans import Spans
from overlayfs_py.union.workdir import WorkDir

_OVERLAYFS_SUPER_MAGIC = 0x794C7630


class Copied:
    """How much was copied up so far: inodes, and bytes of file contents."""

    __slots__ = ("inodes", "size")

    def __init__(self) -> None:
        self.inodes = self.size = 0


class Stack:
    """Layers, options and shared tables of one mount; owns all of their descriptors.

    `hard_links`: nodes with several names, by (st_dev, st_ino) of a real inode. `link_lowers`: names of
    one lower inode are one node (with an index, or when nothing can be copied up). `stashed`: nodes without a
    name that have one in the work directory, which is one link more than their users count. `stripped`: nodes
    whose lower has a file capability that their copy was made without.
    """

    def __init__(self, options: UnionOptions) -> None:
        self.options = options
        share = descriptors.share()
        self.dir_fds: FdCache[Real] = FdCache(share)
        self.data_fds: FdCache[Node] = FdCache(share)
        self.held = Held(share)
        self.stashed: set[Node] = set()
        self.upper: Layer | None = None
        self.upper_lock_fd = -1
        self.work: WorkDir | None = None
        self.pending: Pending | None = None
        self.lowers: list[Layer] = []
        self.data_lowers: list[Layer] = []
        self.indexing = False
        self.capabilities = Capabilities()
        self.hiding = b""
        self.confined = not overrides_modes()
        self.marks = Marks(TRUSTED)
        self.hard_links: dict[tuple[int, int], Node] = {}
        self.stripped: set[Node] = set()
        self.protected: dict[Node, int] = {}  # nodes whose upper part has `overlay.protattr`
        self.uids = IdMap(options.uid_map, options.squash_uid)
        self.gids = IdMap(options.gid_map, options.squash_gid)
        self.owners_as_stored = self.uids.trivial and self.gids.trivial and not options.xattr_permissions
        self.follow_redirects = options.redirect_dir != "nofollow"
        self.spans = Spans()
        self.make_redirects = options.redirect_dir == "on"
        self.metacopy = options.metacopy
        self.copied = Copied()
        self.debris: list[dict[bytes, Entry]] = []  # indexes of huge directories that are forgotten
        self.name_max = 255
        self.euid, self.egid = os.geteuid(), os.getegid()
        self.umask = os.umask(0)
        os.umask(self.umask)

    @property
    def read_only(self) -> bool:
        return self.upper is None

    @property
    def link_lowers(self) -> bool:
        return self.indexing or self.upper is None

    def layers(self) -> list[Layer]:
        """All layers, topmost first."""
        return ([self.upper] if self.upper else []) + self.lowers + self.data_lowers

    def number_filesystems(self) -> None:
        """Numbers of the first layer's file system are shown as they are, those of others with a tag."""
        self.inodes = InodeNumbers(self.layers()[0].dev)
        for layer in self.layers():
            self.inodes.add_layer(layer.dev)
            layer.fstype = filesystem_type(layer.root.fd)
        self.spans.note_mounts([layer for layer in self.layers() if not layer.private])
        options = self.options
        trust_null = options.index or options.metacopy or options.xino == "on"
        self.origins = Origins(self.upper, self.lowers + self.data_lowers, trust_null=trust_null)

    def number(self, real: Real, dev: int, ino: int) -> int:
        """The number to show for `real`, which has st_dev `dev` and st_ino `ino` (ovl_map_dev_ino)."""
        inodes = self.inodes
        if dev == inodes.first and ino < PLAIN_LIMIT:  # nearly always
            return ino
        if not inodes.knows(dev):
            inodes.meet(dev, _place(real, dev))
        return inodes.number(dev, ino)

    def trim(self) -> None:
        """Keep the caches of descriptors within their bounds; call between operations only."""
        self.dir_fds.trim()
        self.data_fds.trim()

    def spare(self) -> bool:
        """Close every descriptor that is opened again when needed; False: there was none."""
        return self.data_fds.clear() | self.dir_fds.clear()

    def close(self) -> None:
        """Release everything; idempotent."""
        self.data_fds.clear()
        self.dir_fds.clear()
        if hasattr(self, "origins"):
            self.origins.close()
        if self.work is not None:
            self.work.close()
        for layer in self.layers():
            layer.close()
        if self.upper_lock_fd >= 0:
            os.close(self.upper_lock_fd)
            self.upper_lock_fd = -1


def _place(real: Real, dev: int) -> bytes:
    """A name for the file system `dev`, which `real` of some layer is on: where in the layer it begins, as
    that is the same in the next mount, else the st_dev itself.
    """
    try:
        top = real if stat.S_ISDIR(real.stat().st_mode) else real.parent
        if top is None or top.stat().st_dev != dev:
            return b"%d" % dev
        while top.parent is not None and top.parent.stat().st_dev == dev:
            top = top.parent
    except OSError:
        return b"%d" % dev
    return b"%d%s" % (real.layer.position, top.layer_path())


def open_stack(options: UnionOptions) -> Stack:
    """Open and check all layers; LayerError names the directory that is wrong."""
    if not options.lower and not options.data_lower:
        raise LayerError("no lowerdir given: name at least one lower directory")
    count = len(options.lower) + len(options.data_lower) + (2 if options.upper else 0)
    if not descriptors.room_for(count):
        raise LayerError(
            f"{count} layers and work directories are too many for a process that may open only "
            f"{descriptors.limit()} files: raise its hard limit (ulimit -Hn, LimitNOFILE=)"
        )
    stack = Stack(options)
    try:
        _open_layers(stack)
        stack.number_filesystems()
        _open_upper_state(stack)
    except BaseException:
        stack.close()
        raise
    return stack


def _open_layers(stack: Stack) -> None:
    options = stack.options
    if options.upper is not None:
        if options.work is None:
            raise LayerError(
                f"upperdir {os.fsdecode(options.upper)}: needs a workdir on the same file system"
            )
        _refuse_overlap(options)
        stack.upper = _open_layer(stack, "upperdir", options.upper, -1)
        work_fd = _open_directory("workdir", options.work)
        if os.fstat(work_fd).st_dev != stack.upper.dev:
            os.close(work_fd)
            raise LayerError(
                f"workdir {os.fsdecode(options.work)}: not on the file system of upperdir "
                f"{os.fsdecode(options.upper)}; both must be in one"
            )
        stack.work = WorkDir(options.work, work_fd, stack.dir_fds, stack.held)
        stack.upper_lock_fd = _lock(stack.upper)
    for number, path in enumerate(options.lower):
        stack.lowers.append(_open_layer(stack, "lowerdir", path, number))
    for number, path in enumerate(options.data_lower, start=len(options.lower)):
        stack.data_lowers.append(_open_layer(stack, "lowerdir", path, number))


def _open_directory(what: str, path: bytes) -> int:
    try:
        fd = os.open(path, O_DIRFD & ~os.O_NOFOLLOW)
    except OSError as e:
        raise LayerError(f"{what} {os.fsdecode(path)}: {e.strerror}") from None
    try:
        os.close(os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd))
    except OSError as e:
        os.close(fd)
        raise LayerError(f"{what} {os.fsdecode(path)}: cannot be read: {e.strerror}") from None
    return fd


def _open_layer(stack: Stack, what: str, path: bytes, position: int) -> Layer:
    """Open one layer; a lower through a private mount of its own where allowed, which hides what is
    mounted in it.
    """
    fd = _open_directory(what, path)
    private = False
    if position >= 0:
        try:
            private_fd = openat.clone_tree(path)
        except OSError:
            pass  # not privileged, or an old kernel: the plain descriptor serves
        else:
            os.close(fd)
            fd, private = private_fd, True
    layer = Layer(path, fd, position, stack.dir_fds, stack.held, private=private)
    if position >= 0:
        layer.aufs = _aufs(stack.options.aufs, layer)
    if stack.options.xattr_permissions:
        on_root = OVERRIDES if layer.is_upper else list_xattrs(layer.root)
        layer.overrides = tuple(name for name in OVERRIDES if name in on_root)
    return layer


def _aufs(option: str, layer: Layer) -> str:
    """What names beginning with ``.wh.`` are in a lower. In another overlay's merged view, and in an upper of
    the kernel's (which marks its root with a UUID since Linux 6.6), they are names that users gave.
    """
    if option == "auto":
        merged = filesystem_type(layer.root.fd) == _OVERLAYFS_SUPER_MAGIC
        if merged or any(get_xattr(layer.root, prefix + "uuid") is not None for prefix in (TRUSTED, USER)):
            return "off"
    return option


def _lock(upper: Layer) -> int:
    """A descriptor that holds the lock on an upper: two mounts, each with a workdir of its own, would not see
    what the other has changed. (The kernel refuses it with index=on, EBUSY.)
    """
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper.root.fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        found = os.fstat(fd)
        os.close(fd)
        if isinstance(e, BlockingIOError):
            raise InUse(f"upperdir {os.fsdecode(upper.path)}", (found.st_dev, found.st_ino)) from None
        raise LayerError(f"upperdir {os.fsdecode(upper.path)}: cannot be locked: {e.strerror}") from None
    return fd


def _ancestors(path: bytes) -> set[tuple[int, int]]:
    """(st_dev, st_ino) of the directory and of all directories above it, so bind mounts cannot hide an
    overlap.
    """
    path = os.path.realpath(path)
    found = set()
    while True:
        st = os.stat(path)
        found.add((st.st_dev, st.st_ino))
        if path == b"/":
            return found
        path = os.path.dirname(path)


def _refuse_overlap(options: UnionOptions) -> None:
    upper, work = options.upper, options.work
    assert upper is not None
    assert work is not None
    above: dict[bytes, set[tuple[int, int]]] = {}
    own: dict[bytes, tuple[int, int]] = {}
    named = [
        ("upperdir", upper),
        ("workdir", work),
        *(("lowerdir", p) for p in options.lower + options.data_lower),
    ]
    for what, path in named:
        try:
            st = os.stat(path)
            above[path] = _ancestors(path)
        except OSError as e:
            raise LayerError(f"{what} {os.fsdecode(path)}: {e.strerror}") from None
        own[path] = (st.st_dev, st.st_ino)
    for first, a in named[:2]:
        for second, b in named:
            if (first, a) == (second, b):
                continue
            for (inner_what, inner), (outer_what, outer) in (
                ((first, a), (second, b)),
                ((second, b), (first, a)),
            ):
                if own[outer] in above[inner]:
                    where = "the same as" if own[outer] == own[inner] else "inside"
                    raise LayerError(
                        f"{inner_what} {os.fsdecode(inner)} is {where} {outer_what} {os.fsdecode(outer)}: "
                        "use separate directories"
                    )


def _open_upper_state(stack: Stack) -> None:
    """Probe the upper, choose the xattr prefix, prepare the work directory, open the index."""
    options = stack.options
    trusted = not options.userxattr and may_use_trusted()
    if stack.work is None or stack.upper is None:
        stack.marks = Marks(TRUSTED if trusted else USER)
        return
    stack.pending = Pending(stack.work, stack.upper, durable=not options.volatile)
    stack.pending.finish()
    stack.work.prepare(volatile=options.volatile)
    try:
        stack.capabilities = probe_upper(stack.work, trusted=trusted)
        stack.hiding = hiding(stack.work)
    except OSError as e:
        raise LayerError(
            f"workdir {shown(stack.work.layer.path)}: no file can be made in it: {e.strerror}"
        ) from None
    if not stack.capabilities.xattrs:
        raise LayerError(
            f"upperdir {os.fsdecode(stack.upper.path)}: its file system takes no extended attributes, "
            "which opaque directories need; use another file system"
        )
    stack.marks = Marks(TRUSTED if stack.capabilities.trusted_xattrs else USER)
    if options.xattr_permissions:
        _declare_overrides(stack)
    stack.name_max = os.fstatvfs(stack.upper.root.fd).f_namemax
    if options.index:
        open_index(stack)


def override_name(stack: Stack) -> str:
    """The xattr that holds owner and mode under xattr_permissions."""
    return OVERRIDES[1] if stack.options.xattr_permissions == 1 else OVERRIDES[0]


def _declare_overrides(stack: Stack) -> None:
    """A layer's root says by an xattr of its own that those of its files count, as fuse-overlayfs has it."""
    assert stack.upper is not None
    root = stack.upper.root
    if get_xattr(root, override_name(stack)) is None:
        st = root.stat()
        set_xattr(root, override_name(stack), format_override(st.st_uid, st.st_gid, st.st_mode))


def open_index(stack: Stack) -> None:
    """Turn indexing on; LayerError where the file systems have no handles to name inodes by, or upper and
    index do not belong to these lowers.

    The checks are the kernel's (ovl_get_indexdir): the upper root's origin is the top lower's root,
    the index directory's `overlay.upper` is the upper's root.
    """
    assert stack.upper is not None
    assert stack.work is not None
    lowers = {layer.dev: layer for layer in reversed(stack.lowers)}
    origins = [stack.origins.encode(layer.root, dev) for dev, layer in lowers.items()]
    upper = stack.origins.encode(stack.upper.root, stack.upper.dev)
    top = stack.origins.encode(stack.lowers[0].root, stack.lowers[0].dev) if stack.lowers else None
    problem = None
    if top is None or upper is None or None in origins:
        problem = "a file system of its layers has no file handles, or no UUID that tells it from the others"
    else:
        stack.work.make_index()
        if not _verify(stack.upper.root, stack.marks.origin, top):
            problem = "the upper was used with another lower; its index does not fit"
        elif not _verify(stack.work.index, stack.marks.upper, upper):
            problem = "the index in the workdir belongs to another upper"
    if problem is not None:
        raise LayerError(f"index=on: upperdir {os.fsdecode(stack.upper.path)}: {problem}")
    stack.indexing = True


def _verify(real: Real, name: str, expected: bytes) -> bool:
    """Whether xattr `name` of directory `real` is `expected`; it is set when absent."""
    path = b"/proc/self/fd/%d" % real.fd
    try:
        return os.getxattr(path, name) == expected
    except OSError:
        pass
    try:
        os.setxattr(path, name, expected)
    except OSError:
        return False
    return True
