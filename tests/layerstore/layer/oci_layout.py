"""An OCI image layout made of layer tars, for other programs to read; independent of the package's own
store.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

MEDIA = "application/vnd.oci.image."


def write_layout(where: Path, layers: Sequence[tuple[bytes, str, str]], tag: str = "latest") -> Path:
    """`layers`: (blob, media type suffix such as "tar+gzip", diff ID), lowest first."""
    blobs = where / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, _, diff_id in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA + "manifest.v1+json",
        "config": put(json.dumps(config).encode(), MEDIA + "config.v1+json"),
        "layers": [put(blob, MEDIA + "layer.v1." + suffix) for blob, suffix, _ in layers],
    }
    descriptor = put(json.dumps(manifest).encode(), MEDIA + "manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (where / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (where / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return where
