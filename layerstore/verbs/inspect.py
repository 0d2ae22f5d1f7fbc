"""``inspect``: everything about an image or a workspace, in the shape of ``docker inspect``."""

import os
from typing import Any, Literal

from layerstore.errors import LayerstoreError, NotFound
from layerstore.image import described, find, lineage, platforms, sizes
from layerstore.image.find import FoundImage
from layerstore.image.image import load
from layerstore.store import usage
from layerstore.store.layernames import places_of
from layerstore.store.opening import RootPath, open_store
from layerstore.store.store import Store
from layerstore.workspace import mounting
from layerstore.workspace.record import Workspace, open_workspace

Kind = Literal["image", "workspace"]

_DRIVER = "overlayfs-py"


def inspect(
    name: str,
    *,
    kind: Kind | None = None,
    size: bool = False,
    platform: str | None = None,
    root: RootPath = None,
) -> dict[str, Any]:
    """Describe the workspace of that name, else the image; `kind` restricts it to one of the two.

    `size` adds the space of a workspace. Of an image for several platforms this machine's is described, or
    `platform`'s. Raises NotFound.
    """
    store = open_store(root)
    wanted = platforms.parse_optional(platform)
    if kind != "image" and wanted is None:
        try:
            return _of_workspace(open_workspace(store, name), size=size)
        except NotFound:
            if kind == "workspace":
                raise
        except LayerstoreError:
            if kind == "workspace" or ("/" not in name and ":" not in name):
                raise
    try:
        return _of_image(store, find.find(store, name, wanted))
    except NotFound as error:
        if kind == "image" or wanted is not None:
            raise
        raise NotFound(f"no such image or workspace: {name}") from error


def _of_image(store: Store, found: FoundImage) -> dict[str, Any]:
    image = found.image
    alike = [one for one in find.readable(store) if one.image.id == image.id]
    names = sorted({name for one in alike for name in one.names})
    places = places_of(image.config.rootfs.diff_ids)
    directories = [str(place.expect(store)) for place in places][::-1]
    size = sizes.of_image(store, image)
    return {
        "Id": image.id,
        "RepoTags": [name for name in names if "@" not in name],
        "RepoDigests": sorted({digest for one in alike for digest in one.digests}),
        "Parent": lineage.ancestors(store, image).get(len(list(image.steps())) - 1, ""),
        **described.document(image),
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {"Data": {"LowerDir": ":".join(directories)}, "Name": _DRIVER},
        "RootFS": {"Type": "layers", "Layers": list(image.config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": described.NO_TIME},  # names are not dated here
        "CompressedSize": image.size,
        "Descriptor": {
            "mediaType": image.descriptor.media_type,
            "digest": image.descriptor.digest,
            "size": image.descriptor.size,
        },
    }


def _of_workspace(workspace: Workspace, *, size: bool) -> dict[str, Any]:
    described = _workspace_object(workspace)
    if size:
        described["SizeRw"] = usage.tree_size(workspace.upper)
        described["SizeRootFs"] = described["SizeRw"] + sum(
            usage.tree_size(path) for path in workspace.lowers
        )
    return described


def _workspace_object(workspace: Workspace) -> dict[str, Any]:
    record, state = workspace.record, mounting.state_of(workspace)
    mounted = state in {"mounted", "dead"}
    return {
        "Name": record.name,
        "Created": record.created,
        "State": {"Status": state, "Mounted": mounted, "MountedAt": record.mounted_at if mounted else None},
        "Image": record.image_id,
        "ImageManifestDescriptor": {
            "mediaType": record.manifest.media_type,
            "digest": record.manifest.digest,
            "size": record.manifest.size,
        },
        "MountPoint": record.mountpoint if mounted else None,
        "GraphDriver": {
            "Name": _DRIVER,
            "Data": {
                "LowerDir": ":".join(str(path) for path in workspace.lowers),
                "UpperDir": str(workspace.upper),
                "WorkDir": str(workspace.work),
                "MergedDir": record.mountpoint if mounted else str(workspace.merged),
            },
        },
        "Mounts": [
            {
                "Type": "bind",
                "Source": bind.source,
                "Destination": bind.target,
                "Mode": "ro" if bind.read_only else "rw",
                "RW": not bind.read_only,
                "Propagation": "rprivate",
            }
            for bind in record.binds
        ],
        "Config": {"Image": record.image, "Init": record.init, **_image_config(workspace)},
        "Path": os.fspath(workspace.path),
    }


def _image_config(workspace: Workspace) -> dict[str, Any]:
    try:
        image = load(workspace.store, workspace.record.manifest)
    except LayerstoreError:
        return {}  # a workspace can be inspected even if its image is damaged
    return dict(image.config.config or {})
