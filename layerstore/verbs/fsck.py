"""``fsck``: check every byte of the store; repair removes what is broken and never anything else.

After a repair, a broken image must be pulled or loaded again; a broken layer directory is unpacked again when
it is next needed.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from layerstore import media, model
from layerstore.callbacks import MeasuredProgress, Note, note_or_log
from layerstore.digest import Digest
from layerstore.errors import InUse, InvalidImage, LayerstoreError, UnsupportedMedia, explain, printable
from layerstore.image.image import load
from layerstore.model import Descriptor
from layerstore.store import blobs, durable, index, partials
from layerstore.store.layercheck import LayerCheck
from layerstore.store.layernames import is_place, places_of
from layerstore.store.opening import RootPath, open_store
from layerstore.store.removing import remove
from layerstore.store.store import Store
from layerstore.transport import oci_archive
from layerstore.workspace import mounting
from layerstore.workspace.record import Workspace, all_workspaces
from layerstore.workspace.uses import is_mounted

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Problem:
    """One line about what is wrong, and whether it was repaired."""

    what: str
    repaired: bool = False


@dataclass(slots=True)
class FsckResult:
    """How much was checked, and what was wrong."""

    problems: list[Problem] = field(default_factory=list)
    blobs: int = 0
    layers: int = 0
    images: int = 0
    workspaces: int = 0


def fsck(
    *,
    repair: bool = False,
    quick: bool = False,
    root: RootPath = None,
    progress: MeasuredProgress | None = None,
    note: Note | None = None,
) -> FsckResult:
    """Check blobs, the index, unpacked layers and workspaces; with `repair` remove what is broken.

    `quick` reads no contents: it neither digests blobs nor compares layers with them. `repair` raises InUse
    while another process is adding an image.
    """
    store = open_store(root)
    if not repair:
        with store.writing():
            return _Check(store, note_or_log(note), progress, repair=False, quick=quick).run()
    with store.sweeping() as alone:
        if not alone:
            raise InUse("another process is adding an image: repair the store when it has finished")
        return _Check(store, note_or_log(note), progress, repair=True, quick=quick).run()


class _Check:
    def __init__(
        self, store: Store, note: Note, progress: MeasuredProgress | None, *, repair: bool, quick: bool
    ) -> None:
        self._store = store
        self._note = note
        self._progress = progress
        self._repair = repair
        self._quick = quick
        self._bad: set[Digest] = set()
        self._layers = LayerCheck(store, note)
        self._image_ids: set[Digest] = set()
        self._result = FsckResult()

    def run(self) -> FsckResult:
        self._check_blobs()
        self._check_index()
        workspaces = self._check_workspaces()
        self._check_layers(workspaces)
        self._check_partials()
        self._check_leftovers()
        return self._result

    def _found(self, what: str, repair: Callable[[], object] | None = None) -> None:
        problem = Problem(what)
        self._result.problems.append(problem)
        if self._repair and repair is not None:
            try:
                repair()
                problem.repaired = True
            except (LayerstoreError, OSError) as error:
                problem.what += f" (not repaired: {explain(error)})"

    def _check_blobs(self) -> None:
        names = self._store.names(self._store.blobs)
        total = sum((self._store.blobs / name).lstat().st_size for name in names)
        done = 0
        for name in names:
            path = self._store.blobs / name
            if _HEX.fullmatch(name) is None:
                self._found(f"{_shown(path)} is not a blob")
                continue
            self._result.blobs += 1
            size = path.lstat().st_size
            why = self._blob_fault(path, Digest(f"sha256:{name}"))
            if why is not None:
                self._bad.add(Digest(f"sha256:{name}"))
                self._found(f"blob sha256:{name}: {why}", _removal(path) if not path.is_dir() else None)
            done += size
            if self._progress is not None:
                self._progress(done, total)

    def _blob_fault(self, path: Path, digest: Digest) -> str | None:
        try:
            fd = durable.open_regular(path)
        except (OSError, LayerstoreError):
            return "is not a regular file"
        with open(fd, "rb", buffering=0) as file:
            if self._quick:
                return None
            try:
                found, _ = blobs.digest_of(file)
            except OSError as error:
                return str(error.strerror)
        return None if found == digest else f"the content's digest is {found}"

    def _check_index(self) -> None:
        try:
            entries = index.read(self._store).manifests
        except (LayerstoreError, OSError) as error:
            self._found(f"index.json: {error}")
            return
        seen: dict[Digest, Descriptor] = {}
        for entry in entries:
            seen.setdefault(entry.digest, entry)
        for digest, entry in seen.items():
            self._result.images += 1
            names = [name for one in entries if one.digest == digest and (name := index.name_of(one))]
            try:
                self._check_image(entry)
            except UnsupportedMedia as error:
                self._note(f"not checked: {', '.join(names) or digest}: {error}")  # others may know it
            except LayerstoreError as error:
                what = f"image {', '.join(names) or digest}: {error}"
                self._found(what, lambda digest=digest: index.remove(self._store, digest))  # type: ignore[misc]

    def _check_image(self, entry: Descriptor) -> None:
        """Record the image's layers. Raises LayerstoreError unless the image is complete."""
        self._check_blob(entry)
        if entry.media_type not in media.MANIFESTS | media.INDEXES:
            raise UnsupportedMedia(f"{entry.digest} is not an image but {entry.media_type}")
        whole = 0
        for manifest in oci_archive.manifests(self._store, entry):
            self._check_blob(manifest)
            parsed = model.parse_manifest(blobs.read_blob(self._store, manifest), manifest.media_type)
            for descriptor in (parsed.config, *parsed.layers):
                self._check_blob(descriptor)
            image = load(self._store, manifest)
            self._image_ids.add(image.id)
            self._layers.add(image.layers)
            whole += 1
        if not whole:
            raise oci_archive.without_image(self._store, entry)

    def _check_blob(self, descriptor: Descriptor) -> None:
        if descriptor.digest in self._bad:
            raise InvalidImage(f"blob {descriptor.digest} is damaged")
        if not blobs.is_present(self._store, descriptor):
            raise InvalidImage(f"blob {descriptor.digest} is missing, or not {descriptor.size} bytes long")

    def _check_workspaces(self) -> list[Workspace]:
        broken: list[LayerstoreError] = []
        found = list(all_workspaces(self._store, broken))
        for error in broken:
            self._found(f"workspace: {error}")
        known = {workspace.name for workspace in found}
        for name in self._store.names(self._store.workspaces):
            path = self._store.workspaces / name
            if name not in known and not os.path.lexists(path / "workspace.json"):
                self._found(f"{_shown(path)} is not a workspace: it has no workspace.json")
        for workspace in found:
            self._result.workspaces += 1
            self._check_workspace(workspace)
        return found

    def _check_workspace(self, workspace: Workspace) -> None:
        name = workspace.name
        for path in (workspace.upper, workspace.work, workspace.merged):
            # What is mounted on merged need not answer.
            if not os.path.lexists(path):
                self._found(f"workspace {name}: {path.name} is missing")
        if mounting.state_of(workspace) == "dead":
            where = workspace.record.mountpoint
            self._found(
                f"workspace {name}: its daemon has exited and left a dead mount at {where}",
                lambda: _clear_mount(workspace),
            )
        try:
            self._check_image(workspace.record.manifest)
        except LayerstoreError as error:
            self._found(f"workspace {name}: its image cannot be committed on: {error}")
            for place in places_of(workspace.record.diff_ids):
                if place.find(self._store) is None:
                    self._found(f"workspace {name}: layer {place.diff_id} is missing")

    def _check_layers(self, workspaces: list[Workspace]) -> None:
        for name in self._store.names(self._store.layers):
            path = self._store.layers / name
            if not is_place(name) or path.is_symlink() or not path.is_dir():
                self._found(f"{_shown(path)} is not a layer")
            else:
                self._result.layers += 1
        if self._quick:
            return
        for path, diff_id, why in self._layers.faults():
            used = self._is_layer_used(diff_id, workspaces)
            what = f"layer {diff_id}: {why}" + (" (it is mounted)" if used else "")
            self._found(what, None if used else lambda path=path: self._store.discard(path))  # type: ignore[misc]

    def _is_layer_used(self, diff_id: Digest, workspaces: list[Workspace]) -> bool:
        mounted = (one for one in workspaces if mounting.state_of(one) in {"mounted", "dead"})
        if any(diff_id in one.record.diff_ids for one in mounted):
            return True
        return any(is_mounted(image_id) for image_id in self._image_ids)

    def _check_partials(self) -> None:
        directory = partials.directory(self._store)
        for name in self._store.names(directory) if directory.is_dir() else []:
            if _HEX.fullmatch(name) is None:
                path = directory / name
                self._found(f"{_shown(path)} is not an unfinished download", _removal(path))
        if self._repair:
            partials.sweep(self._store)

    def _check_leftovers(self) -> None:
        """Report leftovers of dead processes that opening the store could not remove."""
        for error in self._store.clear_leftovers():
            self._found(f"left behind by an interrupted command, and removing it failed: {explain(error)}")


def _clear_mount(workspace: Workspace) -> None:
    with workspace.locked():
        workspace = workspace.reread()
        if mounting.state_of(workspace) == "dead":
            mounting.umount(workspace, force=True)


def _removal(path: Path) -> Callable[[], None]:
    def remove_it() -> None:
        if (error := remove(path)) is not None:
            raise error

    return remove_it


def _shown(path: Path) -> str:
    return printable(os.fsencode(path))
