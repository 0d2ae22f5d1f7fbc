"""A workspace on disk: ``workspaces/<name>/{upper,work,merged,workspace.json}``, and ``init`` where it
needs one.

``workspace.json`` has the whole state of a workspace except for its mount, which the kernel's mount table
has. A process that changes a workspace holds its lock.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from layerstore import model
from layerstore.digest import Digest
from layerstore.errors import AlreadyExists, InvalidImage, LayerstoreError, NotFound
from layerstore.model import Descriptor, HostPath
from layerstore.store import durable, locking
from layerstore.store.layernames import places_of
from layerstore.store.store import Store
from layerstore.workspace import names
from overlayfs_py.syscalls.attrs import syncfs

_MAX_RECORD = 1 << 20
_ATTEMPTS = 100
_MARK = ".overlay."  # in the names of xattrs of the overlay, not of the directory


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A directory or file of the host, bind-mounted at `target` (absolute, as seen inside)."""

    source: HostPath
    target: HostPath
    read_only: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``workspace.json``."""

    name: str
    image: str  # as the user wrote it
    image_id: Digest
    manifest: Descriptor
    diff_ids: list[Digest]  # bottom first
    created: str
    init: bool = False
    init_depth: int = 0  # how many of the image's layers, from the top, are above the init layer
    binds: list[Bind] = []
    mountpoint: HostPath | None = None  # of the last mount
    mounted_at: str | None = None
    new_name: str | None = None  # during a rename: the name of the directory says whether it is done
    lower_inodes: list[int] = []  # of the lower directories at the last mount, topmost first


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace's record and directories."""

    store: Store
    record: Record

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def path(self) -> Path:
        return self.store.workspaces / self.record.name

    @property
    def upper(self) -> Path:
        return self.path / "upper"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def merged(self) -> Path:
        return self.path / "merged"

    @property
    def init(self) -> Path:
        """The init layer: an extra lower over the first image; missing unless it is needed."""
        return self.path / "init"

    @property
    def lowers(self) -> list[Path]:
        """The lower directories, topmost first."""
        image = [place.expect(self.store) for place in places_of(self.record.diff_ids)][::-1]
        if self.init.is_dir():
            image.insert(self.record.init_depth, self.init)
        return image

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[int]:
        """Wait for the exclusive lock on the workspace and hold it. NotFound when it was removed meanwhile.

        Yields the descriptor that has the lock.
        """
        while True:
            before = self._identity()
            with locking.locked(self.path, shared=shared) as lock_fd:
                if self._identity() == before:
                    yield lock_fd
                    return
            # Another directory has this name now (`rotation`): a lock on the old one is useless.

    def _identity(self) -> tuple[int, int]:
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            raise NotFound(f"no such workspace: {self.name}") from None
        return status.st_dev, status.st_ino

    def reread(self) -> "Workspace":
        """Return the workspace as it is now (after waiting for the lock)."""
        return open_workspace(self.store, self.name)

    def save(self, **changes: object) -> "Workspace":
        """Write a changed record. Under the lock. The store removes what a killed process leaves of it."""
        record = msgspec.structs.replace(self.record, **changes)
        with self.store.temp_file(self.store.workspaces) as (temp, fd):
            with open(fd, "wb", closefd=False) as file:
                file.write(model.encode(record))
            os.fsync(fd)
            os.rename(temp, self.path / "workspace.json")
        durable.fsync_dir(self.path)
        return Workspace(self.store, record)

    def rename(self, name: str) -> "Workspace":
        """Rename it, durably: at any moment it has the old name or the new one. Under the lock, not mounted.
        AlreadyExists when another has the name.
        """
        before = self.save(new_name=names.check(name))
        try:
            _take_name(self.path, self.store, name)
        except BaseException:
            before.save(new_name=None)
            raise
        return open_workspace(self.store, name).save()


def open_workspace(store: Store, name: str) -> Workspace:
    """Return the workspace of that name; NotFound."""
    if not names.could_be(name):  # probably the name of an image
        raise NotFound(f"no such workspace: {name}")
    path = store.workspaces / name / "workspace.json"
    try:
        raw = durable.read_capped(path, _MAX_RECORD)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no such workspace: {name}") from None
    return Workspace(store, _parse(raw, path, name))


def all_workspaces(store: Store, broken: list[LayerstoreError] | None = None) -> Iterator[Workspace]:
    """Return every workspace, newest first; errors are passed to `broken`, or raised without it."""
    found: list[Workspace] = []
    for name in store.names(store.workspaces):
        try:
            found.append(open_workspace(store, names.check(name)))
        except NotFound:
            continue  # removed meanwhile
        except LayerstoreError as error:
            if broken is None:
                raise
            broken.append(error)
    yield from sorted(found, key=lambda workspace: workspace.record.created, reverse=True)


@contextmanager
def new_workspace(store: Store, name: str | None) -> Iterator[tuple[str, Path]]:
    """Yield a temporary workspace directory to fill, and its future name; `publish` gives it that name."""
    if name is not None and os.path.lexists(store.workspaces / names.check(name)):
        raise AlreadyExists(f"the workspace {name} already exists")
    with store.temp_dir(store.workspaces) as (temp, _):
        yield name or _unused_name(store), temp


def write(temp: Path, record: Record) -> None:
    """Write the record into a workspace's temporary directory."""
    path = temp / "workspace.json"
    path.write_bytes(model.encode(record))
    path.chmod(durable.mode_in(temp))


def publish(store: Store, temp: Path, record: Record) -> Workspace:
    """Give a filled workspace its name, durably; AlreadyExists when another process was faster."""
    write(temp, record)
    fd = os.open(temp, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
    _take_name(temp, store, record.name)
    return Workspace(store, record)


def _take_name(directory: Path, store: Store, name: str) -> None:
    try:
        os.rename(directory, store.workspaces / name)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            raise AlreadyExists(f"the workspace {name} already exists") from None
        raise
    durable.fsync_dir(store.workspaces)


def root_is_changed(workspace: Workspace, *, times: bool = True) -> bool:
    """Whether the attributes of the upper's root differ from those of the layer below; without `times`,
    different times alone do not count.
    """
    ours, below = (_root_attributes(place, times=times) for place in (workspace.upper, workspace.lowers[0]))
    return ours != below


def _root_attributes(root: Path, *, times: bool) -> tuple[int, int, int, int, dict[str, bytes]]:
    status = root.lstat()
    xattrs = {name: os.getxattr(root, name) for name in os.listxattr(root) if _MARK not in name}
    mtime_ns = status.st_mtime_ns if times else 0
    return status.st_mode, status.st_uid, status.st_gid, mtime_ns, xattrs


def copy_root_attributes(source: Path, target: Path) -> None:
    """Give a new upper the mode, owner, times and xattrs of the image's root: a mount shows the topmost
    root's.
    """
    status = source.lstat()
    for name in os.listxattr(source, follow_symlinks=False):
        if _MARK not in name:
            os.setxattr(target, name, os.getxattr(source, name))
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _unused_name(store: Store) -> str:
    for _ in range(_ATTEMPTS):
        name = names.made_up()
        if not os.path.lexists(store.workspaces / name):
            return name
    return f"{names.made_up()}_{os.urandom(4).hex()}"


def _parse(raw: bytes, path: Path, name: str) -> Record:
    try:
        record = model.decode(raw, Record)
    except InvalidImage as error:
        raise InvalidImage(f"{path} is damaged: {error}") from None
    if name not in {record.name, record.new_name}:
        raise InvalidImage(f"{path} is damaged: it is the record of the workspace {record.name!r}")
    return msgspec.structs.replace(record, name=name, new_name=None)
