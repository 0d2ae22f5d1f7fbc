"""The store's root: an OCI image layout, unpacked layers and workspaces under one directory.

Everything below becomes visible by one rename; leftovers of killed processes have temporary names and are
removed when the store is opened. Locks: `Store.locked` (the root) guards names and ``index.json``, for
moments; `Store.writing` (``oci/``) is shared by processes that add blobs of an image, and exclusive for a
sweep.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from layerstore.errors import InvalidImage, LayerstoreError, UnsupportedMedia
from layerstore.model import parse_document
from layerstore.store import durable, locking, places
from layerstore.store.removing import refuse_mounts, remove
from layerstore.undoing import undone
from overlayfs_py.syscalls.attrs import unprotect

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY_INDEX = b'{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'


# An xattr of layers/: its names are those of `layernames`. Older versions had everything under its diffID.
_NAMED = stat.S_ISVTX
_DIFF_ID = re.compile(r"[0-9a-f]{64}")
SET_ASIDE = ".old"


@dataclass(frozen=True, slots=True)
class Store:
    """Paths, locks and temporary names of one store. `Store.open` makes one."""

    root: Path
    is_there: bool = True  # False: an empty store without a directory

    @property
    def oci(self) -> Path:
        return self.root / "oci"

    @property
    def blobs(self) -> Path:
        return self.root / "oci/blobs/sha256"

    @property
    def layers(self) -> Path:
        return self.root / "layers"

    @property
    def knows_its_layers(self) -> bool:
        """Whether unpacked layers can be trusted: not in a store of an older version."""
        return bool(self.layers.stat().st_mode & _NAMED)

    @property
    def workspaces(self) -> Path:
        return self.root / "workspaces"

    @classmethod
    def open(cls, root: Path, *, make: bool = True) -> "Store":
        """Open a store, make it if it does not exist, and remove leftovers of killed processes.

        Without `make`, a store that does not exist is an empty one, and nothing is written. A store on a
        read-only file system is used as it is.
        """
        path = Path(os.path.abspath(root))
        try:
            places.check(path)
            if not make and not places.is_store(path):
                return cls(path, is_there=False)
            places.make_root(path)
            store = cls(path)
            if not os.statvfs(path).f_flag & os.ST_RDONLY:
                with store.locked():
                    places.close_to_others(path)
                    store._create()
                    store._clear_leftovers()
        except OSError as error:
            raise LayerstoreError(f"cannot open the store {path}: {error.strerror}") from error
        store._check_version()
        return store

    def share(self) -> None:
        """Make the images of this store readable to everyone."""
        with self.locked():
            places.open_to_others(self.root)

    def names(self, directory: Path) -> list[str]:
        """Return the finished objects in one of the store's directories, sorted."""
        names = sorted(os.listdir(directory)) if self.is_there else []
        return [name for name in names if not name.startswith(locking.TEMP_PREFIX)]

    def locked(self, *, shared: bool = False) -> AbstractContextManager[int]:
        """Hold the lock on names and ``index.json``, for moments only."""
        return locking.locked(self.root, shared=shared)

    def writing(self) -> AbstractContextManager[int]:
        """Hold this from the first blob of an image to its entry in ``index.json``: no sweep runs
        meanwhile.
        """
        return locking.locked(self.oci, shared=True) if self.is_there else nullcontext(-1)

    def sweeping(self) -> AbstractContextManager[bool]:
        """Hold the right to remove unused blobs and layers; yields False while another process is writing."""
        return locking.try_locked(self.oci) if self.is_there else nullcontext(True)

    @contextmanager
    def temp_file(self, directory: Path) -> Iterator[tuple[Path, int]]:
        """Yield a temporary file beside its final name, and its fd (owned here); removed unless it was
        renamed.
        """
        path = directory / locking.temp_name()
        with ExitStack() as held, undone(lambda: remove(path)), durable.filling(directory):
            with self.locked(shared=True):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                held.callback(os.close, fd)
                locking.hold(fd)
            yield path, fd

    @contextmanager
    def temp_dir(self, directory: Path) -> Iterator[tuple[Path, int]]:
        """Yield a temporary directory beside its final name, and an fd on it; removed unless it was renamed.
        What cannot be removed stays for `clear_leftovers`.
        """
        path = directory / locking.temp_name()
        with ExitStack() as held, undone(lambda: remove(path)), durable.filling(directory):
            with self.locked(shared=True):
                path.mkdir(mode=0o700)
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                held.callback(os.close, fd)
                locking.hold(fd)
                os.fchmod(fd, 0o755)  # whatever the umask: it may become the root directory of a system
            yield path, fd

    def discard(self, path: Path) -> None:
        """Remove a directory of the store: its name goes at once, its content afterwards. InUse, with nothing
        changed, when something is mounted in it. What cannot be removed stays for `clear_leftovers`.
        """
        refuse_mounts(path)
        grave = path.with_name(locking.temp_name())
        with ExitStack() as held, undone(lambda: remove(grave)), self.locked(shared=True):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, fd)
            unprotect(fd)
            os.rename(path, grave)
            with suppress(BlockingIOError):  # the caller holds it already
                locking.hold(fd)

    def clear_leftovers(self) -> list[OSError]:
        """Remove leftovers of killed processes as far as possible; return why some of them stay."""
        if not self.is_there:
            return []
        with self.locked():
            return self._clear_leftovers()

    def _create(self) -> None:
        """Idempotent; under the lock."""
        for directory in (self.oci, self.blobs.parent, self.blobs, self.layers, self.workspaces):
            places.make_directory(directory)
        for path, content in ((self.oci / "oci-layout", _LAYOUT), (self.oci / "index.json", _EMPTY_INDEX)):
            if not os.path.lexists(path):
                durable.replace_file(path, content)
        if not self.knows_its_layers:
            self._set_layers_aside()

    def _set_layers_aside(self) -> None:
        """Set aside the unpacked layers of an older version, which may be wrong for another image
        (`layernames`). Mounts that use them hold their directories open and continue.
        """
        names = os.listdir(self.layers)
        for name in filter(_DIFF_ID.fullmatch, names):
            suffixes = (SET_ASIDE + (f".{number}" if number else "") for number in count())
            free = next(name + suffix for suffix in suffixes if name + suffix not in names)
            os.rename(self.layers / name, self.layers / free)
        durable.fsync_dir(self.layers)
        self.layers.chmod(stat.S_IMODE(self.layers.stat().st_mode) | _NAMED)
        durable.fsync_dir(self.layers)

    def _clear_leftovers(self) -> list[OSError]:
        places = (self.oci, self.blobs, self.layers, self.workspaces)
        found = [path for directory in places for path in locking.leftovers(directory)]
        return [error for path in found if (error := remove(path)) is not None]

    def _check_version(self) -> None:
        document = parse_document(durable.read_capped(self.oci / "oci-layout", 4096))
        version = document.get("imageLayoutVersion")
        if not isinstance(version, str):
            raise InvalidImage(f"{self.oci}/oci-layout: imageLayoutVersion is missing")
        if version.split(".")[0] != "1":
            raise UnsupportedMedia(f"{self.oci}: unsupported image layout version {version}")
