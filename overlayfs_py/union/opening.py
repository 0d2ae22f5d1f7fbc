"""Opening a stack: what must hold before anything is mounted.

Errors say in one line which directory is wrong; nothing stays open or changed that the next mount minds.

The order is a part of the safety. First comes all that may be refused, without a change on the disk:
overlapping paths, the locks on upper and work directory, the lowers. Then, under the locks, what a crash left
is ended: the rename that was under way (`pending`), and the temporary inodes (`workdir`). The abilities are
probed in the clean work directory, and the index is opened last, as its marks have the prefix that the probe
has chosen.

Layers are opened once, as descriptors of their roots. What happens to their paths afterwards is of no effect.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from overlayfs_py.errors import LayerError, shown
from overlayfs_py.options import UnionOptions
from overlayfs_py.syscalls import as_owner, openat
from overlayfs_py.syscalls.attrs import filesystem_type
from overlayfs_py.syscalls.privileges import is_administrator
from overlayfs_py.union import descriptors
from overlayfs_py.union.attr import format_override
from overlayfs_py.union.layer import O_DIRFD, Layer, Real
from overlayfs_py.union.marks import OVERRIDES, TRUSTED, USER, Marks, get_xattr, list_xattrs, set_xattr
from overlayfs_py.union.probe import probe_upper, silly_rename_prefix
from overlayfs_py.union.stack import Stack, override_name
from overlayfs_py.union.upper import Upper
from overlayfs_py.union.workdir import WorkDir

_OVERLAYFS_SUPER_MAGIC = 0x794C7630


def open_stack(options: UnionOptions) -> Stack:
    """Open and check all layers; the caller closes the stack. LayerError names the directory that is wrong,
    and then nothing stays open. InUse: another mount has the upper or the work directory.
    """
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
        _prepare(stack)
    except BaseException:
        stack.close()
        raise
    return stack


def _open_layers(stack: Stack) -> None:
    options = stack.options
    if options.upper is not None:
        stack.upper = _open_upper(stack, options.upper)
    open_lowers(stack)


def open_lowers(stack: Stack) -> None:
    """Open the lowers that the stack's options name."""
    options = stack.options
    for number, path in enumerate(options.lower):
        stack.lowers.append(_open_layer(stack, "lowerdir", path, number))
    for number, path in enumerate(options.data_lower, start=len(options.lower)):
        stack.data_lowers.append(_open_layer(stack, "lowerdir", path, number))


def _open_upper(stack: Stack, path: bytes) -> Upper:
    """Open, check and lock upper and work directory. They must be on one file system, since every new entry
    is renamed from the one to the other.
    """
    options = stack.options
    if options.work is None:
        raise LayerError(f"upperdir {shown(path)}: needs a workdir on the same file system")
    _refuse_overlap(path, options.work, options.lower + options.data_lower)
    with ExitStack() as opened:
        layer = _open_layer(stack, "upperdir", path, -1)
        opened.callback(layer.close)
        work_fd = _open_directory("workdir", options.work)
        if os.fstat(work_fd).st_dev != layer.dev:
            os.close(work_fd)
            raise LayerError(
                f"workdir {shown(options.work)}: not on the file system of upperdir {shown(path)}; "
                "both must be in one"
            )
        work = WorkDir(options.work, work_fd, stack.dir_fds, stack.held)
        opened.callback(work.close)
        work.layer.overrides = layer.overrides  # what is copied up keeps this layer when it has its name
        upper = Upper(layer, work)
        upper.take(durable=not options.volatile)
        opened.pop_all()
        return upper


def _open_layer(stack: Stack, what: str, path: bytes, position: int) -> Layer:
    """Open one layer; a lower through a private mount of its own where allowed, which hides what is
    mounted in it, as the kernel does (clone_private_mount). An upper is opened as it is: it and the work
    directory must be in one mount, as rename(2) does not cross mounts (EXDEV).
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
    """Return what names beginning with ``.wh.`` are in a lower: on (marks), off (names), or auto.

    In another overlay's merged view, and in an upper of the kernel's (which marks its root with a UUID since
    Linux 6.6), they are names that users gave. Taking one for a mark would hide a file.
    """
    if option == "auto":
        merged = filesystem_type(layer.root.fd) == _OVERLAYFS_SUPER_MAGIC
        if merged or any(get_xattr(layer.root, prefix + "uuid") is not None for prefix in (TRUSTED, USER)):
            return "off"
    return option


def open_upper_to_read(stack: Stack, path: bytes, work: bytes | None) -> Upper:
    """Open an upper that nothing is written to: no lock, and of a work directory only the index that is
    there.
    """
    layer = _open_layer(stack, "upperdir", path, -1)
    layer.noatime = True
    with ExitStack() as opened:
        opened.callback(layer.close)
        read = None
        if work is not None:
            read = WorkDir(work, _open_directory("workdir", work), stack.dir_fds, stack.held)
            opened.callback(read.close)
            with suppress(FileNotFoundError):
                read.open_index()
        upper = Upper(layer, read, indexing=read is not None and read.index.fd >= 0)
        opened.pop_all()
        return upper


def _open_directory(what: str, path: bytes) -> int:
    try:
        fd = os.open(path, O_DIRFD & ~os.O_NOFOLLOW)
    except OSError as e:
        raise LayerError(f"{what} {shown(path)}: {e.strerror}") from None
    try:
        os.close(as_owner.open_at(fd, b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as e:
        os.close(fd)
        raise LayerError(f"{what} {shown(path)}: cannot be read: {e.strerror}") from None
    return fd


def _ancestors(path: bytes) -> set[tuple[int, int]]:
    """Return (st_dev, st_ino) of the directory and of all directories above it. Names would not do: bind
    mounts give one directory several.
    """
    path = os.path.realpath(path)
    found = set()
    while True:
        st = os.stat(path)
        found.add((st.st_dev, st.st_ino))
        if path == b"/":
            return found
        path = os.path.dirname(path)


def _refuse_overlap(upper: bytes, work: bytes, lowers: Sequence[bytes]) -> None:
    """Raise LayerError where upper or work directory is one of the others, or inside of it, or around it.

    What is written would then appear in a lower that is taken not to change (ovl_check_layer). Lowers may
    overlap each other: nothing is written to them.
    """
    above: dict[bytes, set[tuple[int, int]]] = {}
    own: dict[bytes, tuple[int, int]] = {}
    named = [
        ("upperdir", upper),
        ("workdir", work),
        *(("lowerdir", lower) for lower in lowers),
    ]
    for what, path in named:
        try:
            st = os.stat(path)
            above[path] = _ancestors(path)
        except OSError as e:
            raise LayerError(f"{what} {shown(path)}: {e.strerror}") from None
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
                        f"{inner_what} {shown(inner)} is {where} {outer_what} {shown(outer)}: "
                        "use separate directories"
                    )


def _prepare(stack: Stack) -> None:
    """Choose the prefix of the marks; with an upper end what a crash left, probe it, open its index.

    Without an upper nothing can be probed, so the prefix is what the privileges allow to be read.
    """
    options = stack.options
    trusted = not options.userxattr and is_administrator()
    upper = stack.upper
    if upper is None:
        stack.marks = Marks(TRUSTED if trusted else USER)
        return
    upper.pending.finish()
    upper.work.prepare(volatile=options.volatile)
    try:
        stack.capabilities = probe_upper(upper.work, trusted=trusted)
        upper.silly_rename_prefix = silly_rename_prefix(upper.work)
    except OSError as e:
        raise LayerError(
            f"workdir {shown(upper.work.layer.path)}: no file can be made in it: {e.strerror}"
        ) from None
    if not stack.capabilities.xattrs:
        raise LayerError(
            f"upperdir {shown(upper.layer.path)}: its file system takes no extended attributes, "
            "which opaque directories need; use another file system"
        )
    stack.marks = Marks(TRUSTED if stack.capabilities.trusted_xattrs else USER)
    if options.xattr_permissions:
        _declare_overrides(upper.layer.root, override_name(stack))
    if options.index:
        _open_index(stack, upper)


def _declare_overrides(root: Real, name: str) -> None:
    """Mark an upper's root: its own xattr says that those of its files count, as in fuse-overlayfs."""
    if get_xattr(root, name) is None:
        st = root.stat()
        set_xattr(root, name, format_override(st.st_uid, st.st_gid, st.st_mode))


def _open_index(stack: Stack, upper: Upper) -> None:
    """Turn indexing on; LayerError where the file systems have no handles to name inodes by, or upper and
    index do not belong to these lowers.

    The checks are the kernel's (ovl_get_indexdir): the upper root's origin is the top lower's root,
    the index directory's `overlay.upper` is the upper's root.
    """
    root = upper.layer.root
    lowers = {layer.dev: layer for layer in reversed(stack.lowers)}
    origins = [stack.origins.encode(layer.root, dev) for dev, layer in lowers.items()]
    own = stack.origins.encode(root, upper.layer.dev)
    top = stack.origins.encode(stack.lowers[0].root, stack.lowers[0].dev) if stack.lowers else None
    problem = None
    if top is None or own is None or None in origins:
        problem = "a file system of its layers has no file handles, or no UUID that tells it from the others"
    else:
        upper.work.make_index()
        if not _verify(root, stack.marks.origin, top):
            problem = "the upper was used with another lower; its index does not fit"
        elif not _verify(upper.work.index, stack.marks.upper, own):
            problem = "the index in the workdir belongs to another upper"
    if problem is not None:
        raise LayerError(f"index=on: upperdir {shown(upper.layer.path)}: {problem}")
    upper.indexing = True


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
