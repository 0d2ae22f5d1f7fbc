"""Image archives made by hand, honest and not."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from tests.layerstore.commands import ROOTFS, tarball

LAYER = tarball(ROOTFS)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dumps(document: Any) -> bytes:
    return json.dumps(document).encode()


def config_of(*layers: bytes) -> bytes:
    """A configuration for layers that are plain tars."""
    diff_ids = [f"sha256:{sha(layer)}" for layer in layers]
    return dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def pack(files: Mapping[str, bytes | tarfile.TarInfo] | Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of these files; a TarInfo is a member of another kind."""
    out = io.BytesIO()
    pairs = files.items() if isinstance(files, Mapping) else files
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in pairs:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, target
    return info


def old_docker(*, tags: Sequence[str] | None = ("old:1",), layer: bytes = LAYER) -> dict[str, Any]:
    """What docker 1.10 to 24 writes: a configuration, a directory for each layer, two documents."""
    config = config_of(LAYER)
    item = {"Config": f"{sha(config)}.json", "RepoTags": tags, "Layers": ["1" * 64 + "/layer.tar"]}
    return {
        "1" * 64 + "/VERSION": b"1.0",
        "1" * 64 + "/json": b"{}",
        "1" * 64 + "/layer.tar": layer,
        f"{sha(config)}.json": config,
        "manifest.json": dumps([item]),
        "repositories": dumps({"old": {"1": "1" * 64}}),
    }


def layout(
    *,
    name: str | None = "oci:1",
    layer: bytes = LAYER,
    manifest: Mapping[str, Any] | None = None,
    entry: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An oci-archive of one image; `manifest` and `entry` change its documents."""
    config = config_of(layer)
    document = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{sha(config)}",
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": f"sha256:{sha(layer)}",
                "size": len(layer),
            }
        ],
        **(manifest or {}),
    }
    raw = dumps(document)
    top = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{sha(raw)}",
        "size": len(raw),
        **({"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}),
        **(entry or {}),
    }
    blobs = {f"blobs/sha256/{sha(data)}": data for data in (config, layer, raw)}
    return {
        **blobs,
        "index.json": dumps({"schemaVersion": 2, "manifests": [top]}),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
