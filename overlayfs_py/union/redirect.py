"""Redirects: where in the lower layers a moved directory or metacopy file has its parts.

A redirect is a name among the lower siblings, or an absolute path in the view that the lower
layers give together; fs/overlayfs/dir.c ovl_get_redirect, namei.c ovl_lookup_layer.

It is written before the move that needs it and says where the lower parts are already, so it is true before
the move and after it (`rename`). The path is walked by the rules of a lookup, layer by layer: directories on
the way may be whiteouts, files, opaque or redirected themselves. Redirects are data that anyone may have put
into a layer, so a path is names only, without . and .., and each is looked up beneath the layer's root.
"""

import errno
import stat

from overlayfs_py.errors import fail
from overlayfs_py.union import marks
from overlayfs_py.union.layer import Real, is_whiteout_device
from overlayfs_py.union.node import Node
from overlayfs_py.union.stack import Stack

_REDIRECT_MAX = 256  # the kernel's redirect_max


def lower_path(stack: Stack, parent: Node, name: bytes) -> bytes:
    """Return the path of entry `name` of `parent` as the lowers have it; EXDEV when too long for a redirect.

    Upwards through the merged view: a directory that was moved is at its redirect in the lowers, not at its
    name here. An absolute redirect ends the way, as it says the rest.
    """
    parts = [name]
    node: Node | None = parent
    while node is not None and node.parent is not None:
        redirect = marks.get_xattr(node.upper, stack.marks.redirect) if node.upper is not None else None
        if redirect is not None and redirect.startswith(b"/"):
            parts.append(redirect[1:])
            break
        parts.append(node.name if redirect is None else redirect)
        node = node.parent
    path = b"/" + b"/".join(reversed(parts))
    if len(path) > _REDIRECT_MAX:
        fail(errno.EXDEV)
    return path


def data_path(stack: Stack, node: Node) -> bytes | None:
    """Return the path to a metacopy file's data, None when its redirect says it already; EXDEV when it is too
    long.
    """
    present = marks.get_xattr(node.upper, stack.marks.redirect) if node.upper is not None else None
    if present is not None and present.startswith(b"/"):
        return None
    return lower_path(stack, node.directory, node.name if present is None else present)


def point_to_data(stack: Stack, node: Node) -> None:
    """Before a metacopy file gets a second name: say where its data is (ovl_set_link_redirect)."""
    path = data_path(stack, node)
    if path is not None:
        marks.set_xattr(node.copied, stack.marks.redirect, path)


def combine(current: bytes, redirect: bytes) -> bytes:
    """Return where to look below a part found at `current` (a name or an absolute path) that has `redirect`.
    A relative one replaces the last name.
    """
    if redirect.startswith(b"/") or not current.startswith(b"/"):
        return redirect
    return current[: current.rindex(b"/") + 1] + redirect


class Candidate:
    """What one layer has at a redirect's target. `real` None: hidden there, and in the layers below."""

    __slots__ = ("real", "sealed")

    def __init__(self, real: Real | None, *, sealed: bool) -> None:
        self.real = real
        self.sealed = sealed  # nothing below this layer merges


def candidates(stack: Stack, parent: Node, redirect: bytes, below: int) -> list[Candidate]:
    """Return what the layers under position `below` have at the redirect's target, topmost first.

    EIO for a malformed one, as from the kernel (ovl_check_redirect): a wrong guess would show wrong contents.
    """
    absolute = redirect.startswith(b"/")
    names = [n for n in redirect.split(b"/") if n]
    if not names or b".." in names or b"." in names or (not absolute and len(names) > 1):
        raise OSError(errno.EIO, "its redirect makes no sense")
    starts = [layer.root for layer in stack.lowers] if absolute else list(parent.lowers)
    search = _Search(stack, names)
    for start in starts:
        if start.layer.position > below and not search.layer(start):
            break
    return search.found


class _Search:
    """Walks one path through the layers; a redirect met on the way changes it for the layers below."""

    def __init__(self, stack: Stack, names: list[bytes]) -> None:
        self.stack = stack
        self.names = names
        self.found: list[Candidate] = []

    def layer(self, start: Real) -> bool:
        """Look in one layer; False: the layers below do not count.

        They do not below a whiteout or a file on the way, since what they have at the path is hidden, and
        neither below an opaque directory, of which the parts found so far are all (`sealed`).
        """
        real = start
        names = self.names
        sealed = False
        for depth, name in enumerate(names):
            child = real.child(name)
            kind = self._kind(real, child)
            if kind == stat.S_IFCHR:
                self.found.append(Candidate(None, sealed=True))
                return False
            if kind == 0:
                return not sealed
            if depth < len(names) - 1:
                if kind != stat.S_IFDIR:
                    return False
                sealed = self._pass(child, names[:depth], names[depth + 1 :]) or sealed
            real = child
        self.found.append(Candidate(real, sealed=sealed))
        return not sealed

    def _pass(self, directory: Real, above: list[bytes], rest: list[bytes]) -> bool:
        """Go through a directory on the way: whether it is opaque; its redirect holds for the next layer."""
        found = self.stack.marks.read_dir(directory)
        if found.redirect is not None and self.stack.follow_redirects:
            target = [n for n in found.redirect.split(b"/") if n]
            self.names = (target if found.redirect.startswith(b"/") else above + target) + rest
        return found.opaque

    def _kind(self, parent: Real, child: Real) -> int:
        """The file type; 0 when missing, S_IFCHR for any form of whiteout."""
        try:
            st = child.stat()
        except (FileNotFoundError, NotADirectoryError):
            return stat.S_IFCHR if marks.aufs_hides(parent, child.name) else 0
        if is_whiteout_device(st):
            return stat.S_IFCHR
        if stat.S_ISREG(st.st_mode) and st.st_size == 0 and self.stack.marks.is_xattr_whiteout(child):
            return stat.S_IFCHR
        kind = stat.S_IFMT(st.st_mode)
        return stat.S_IFREG if kind == stat.S_IFCHR else kind
