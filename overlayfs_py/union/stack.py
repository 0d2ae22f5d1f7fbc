"""The stack a mount works on: its layers, what they can do, and the tables every operation shares."""

import errno
import os
import stat

from overlayfs_py.errors import fail
from overlayfs_py.options import UnionOptions
from overlayfs_py.syscalls.attrs import filesystem_type
from overlayfs_py.syscalls.privileges import CAP_DAC_OVERRIDE, has_capability
from overlayfs_py.union import descriptors
from overlayfs_py.union.attr import IdMap
from overlayfs_py.union.boundaries import Boundaries
from overlayfs_py.union.descriptors import FdCache, Held
from overlayfs_py.union.inode import PLAIN_LIMIT, InodeNumbers
from overlayfs_py.union.layer import Layer, Real
from overlayfs_py.union.marks import OVERRIDES, TRUSTED, Marks
from overlayfs_py.union.node import Entry, Node
from overlayfs_py.union.origin import Origins
from overlayfs_py.union.probe import Capabilities
from overlayfs_py.union.upper import Upper
from overlayfs_py.union.workdir import WorkDir


class CopyUpCounts:
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
        self.upper: Upper | None = None  # None: nothing can be changed
        self.lowers: list[Layer] = []
        self.data_lowers: list[Layer] = []
        self.capabilities = Capabilities()
        self.confined = not has_capability(CAP_DAC_OVERRIDE)
        self.marks = Marks(TRUSTED)
        self.hard_links: dict[tuple[int, int], Node] = {}
        self.stripped: set[Node] = set()
        self.protected: dict[Node, int] = {}  # nodes whose upper part has `overlay.protattr`
        self.uids = IdMap(options.uid_map, options.squash_uid)
        self.gids = IdMap(options.gid_map, options.squash_gid)
        self.owners_as_stored = self.uids.trivial and self.gids.trivial and not options.xattr_permissions
        self.follow_redirects = options.redirect_dir != "nofollow"
        self.boundaries = Boundaries()
        self.make_redirects = options.redirect_dir == "on"
        self.metacopy = options.metacopy
        self.copy_ups = CopyUpCounts()
        self.debris: list[dict[bytes, Entry]] = []  # indexes of huge directories that are forgotten
        self.euid, self.egid = os.geteuid(), os.getegid()
        self.umask = os.umask(0)
        os.umask(self.umask)

    @property
    def read_only(self) -> bool:
        return self.upper is None

    @property
    def link_lowers(self) -> bool:
        return self.upper is None or self.upper.indexing

    @property
    def indexing(self) -> bool:
        """Whether a lower hard link stays one inode when it is copied up."""
        return self.upper is not None and self.upper.indexing

    @property
    def name_max(self) -> int:
        """Bytes that a name may have."""
        return 255 if self.upper is None else self.upper.name_max

    def require_upper(self) -> Upper:
        """The upper; EROFS on a mount without one."""
        if self.upper is None:
            fail(errno.EROFS)
        return self.upper

    @property
    def work(self) -> WorkDir:
        """The upper's work directory; EROFS on a mount without one."""
        return self.require_upper().work

    def layers(self) -> list[Layer]:
        """All layers, topmost first."""
        return ([self.upper.layer] if self.upper else []) + self.lowers + self.data_lowers

    def number_filesystems(self) -> None:
        """Numbers of the first layer's file system are shown as they are, those of others with a tag."""
        self.inodes = InodeNumbers(self.layers()[0].dev)
        for layer in self.layers():
            self.inodes.add_layer(layer.dev)
            layer.fstype = filesystem_type(layer.root.fd)
        self.boundaries.note_mounts([layer for layer in self.layers() if not layer.private])
        options = self.options
        trust_null = options.index or options.metacopy or options.xino == "on"
        upper = None if self.upper is None else self.upper.layer
        self.origins = Origins(upper, self.lowers + self.data_lowers, trust_null=trust_null)

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
        if self.upper is not None:
            self.upper.close()
        for layer in self.lowers + self.data_lowers:
            layer.close()


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


def override_name(stack: Stack) -> str:
    """The xattr that holds owner and mode under xattr_permissions."""
    return OVERRIDES[1] if stack.options.xattr_permissions == 1 else OVERRIDES[0]
