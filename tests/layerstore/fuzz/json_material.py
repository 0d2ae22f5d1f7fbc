"""Hostile documents: index, manifest and configuration of a real image, with values that do not belong.

The digests between them are made right again most of the time, so that what is wrong is found where it is.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.layerstore.archives import LAYER

Document = Any
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker.distribution.manifest."
CONFIG_TYPE, LAYER_TYPE = OCI + "config.v1+json", OCI + "layer.v1.tar"
MANIFEST_TYPE, INDEX_TYPE = OCI + "manifest.v1+json", OCI + "index.v1+json"

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, 10**400, 1.5,
    -0.0, 1e308, float("inf"), float("nan"), "", " ", "x" * 5000, "\0", "\x1b]0;x\x07", "a\nb",
    "\ud800", "\u202e", "/", "..", "../../etc/passwd", "sha256:../../x", "sha256:" + "A" * 64,
    "sha256:" + "a" * 64, "sha512:" + "a" * 128, "md5:x", "layers", "linux", "amd64", "oci:1",
    "a b", "LABEL", "2026-01-01T00:00:00Z", "0000-00-00T99:99:99Z", "9" * 30, CONFIG_TYPE,
    LAYER_TYPE, LAYER_TYPE + "+gzip", LAYER_TYPE + "+zstd", MANIFEST_TYPE, INDEX_TYPE,
    DOCKER + "v2+json", DOCKER + "v1+json", "text/plain", [], {}, [[]], [None], {"": ""}, {"a":
    {"b": []}}, ["x"] * 300,
]  # fmt: skip
KEYS = [
    "schemaVersion", "mediaType", "config", "layers", "manifests", "urls", "data", "subject",
    "annotations", "digest", "size", "platform", "artifactType", "rootfs", "diff_ids", "history",
    "type", "created", "os", "os.version", "architecture", "variant", "Env", "Cmd", "Entrypoint",
    "Labels", "ExposedPorts", "Volumes", "User", "OnBuild", "Healthcheck", "Shell", "StopSignal",
    "WorkingDir", "ArgsEscaped", "empty_layer", "created_by", "author", "comment", "", "__proto__",
    "x" * 300, "\ud800",
]  # fmt: skip


def blob(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_document() -> Document:
    step = {"created": "2026-01-01T00:00:00Z", "created_by": "RUN x", "author": "me", "comment": "c"}
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00.5Z",
        "author": "me",
        "config": {
            "Env": ["PATH=/bin", "A=1"],
            "Cmd": ["/bin/sh"],
            "Entrypoint": None,
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "Labels": {"a": "b"},
            "User": "root",
            "WorkingDir": "/",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
            "OnBuild": ["RUN y"],
            "StopSignal": "TERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [blob(LAYER)]},
        "history": [{**step}, {"empty_layer": True, **step}],
    }


def descriptor(media_type: str, data: bytes) -> Document:
    return {"mediaType": media_type, "digest": blob(data), "size": len(data)}


def manifest_document(config: bytes) -> Document:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, LAYER)],
        "annotations": {"a": "b"},
    }


def index_document(manifest: bytes, media_type: str = MANIFEST_TYPE) -> Document:
    entry = descriptor(media_type, manifest)
    entry["annotations"] = {
        "org.opencontainers.image.ref.name": "oci:1",
        "io.containerd.image.name": "docker.io/l/oci:1",
    }
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}


def _places(document: Document) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in it."""
    pending = [document]
    while pending:
        one = pending.pop()
        pairs = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, value in pairs:
            yield one, key
            pending.append(value)


def changed(rng: Random, document: Document, times: int) -> Document:
    """A copy with `times` nodes that are something else."""
    document = copy.deepcopy(document)
    for _ in range(times):
        places = list(_places(document))
        if not places:
            return rng.choice(VALUES)
        container, key = rng.choice(places)
        _change(rng, container, key, places)
    return rng.choice(VALUES) if rng.random() < 0.01 else document


def _change(rng: Random, container: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    what = rng.randrange(8)
    if what < 3:
        container[key] = copy.deepcopy(rng.choice(VALUES))
    elif what == 3:
        del container[key]
    elif what == 4:
        other, name = rng.choice(places)
        container[key] = copy.deepcopy(other[name])
    elif what == 5 and isinstance(container, list):
        container[:] = container * rng.choice([2, 3, 200])
    elif what == 6 and isinstance(container, dict):
        container[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
    elif isinstance(container, dict) and isinstance(key, str):
        container[rng.choice([key.upper(), key.capitalize(), key + " "])] = container.pop(key)


def nested(depth: int) -> str:
    return '{"a":[' * depth + "]}" * depth


QUOTES = [b"'", b'"\xff', b'\\"', b'"\\u0000', b'"\\ud800']
TWOS = [b"2e0", b"1e999", b"-", b"9" * 5000, b"02", b"0x2", b"2.0"]

RAW: list[Callable[[Random, str], bytes]] = [
    lambda rng, text: text.encode()[: rng.randrange(len(text) + 1)],
    lambda rng, text: text.encode() + rng.choice([b"}", b"{}", b"\0", b"\n" * 5, b",", b"x"]),
    lambda rng, text: rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"[", b"//\n"]) + text.encode(),
    lambda rng, text: text.encode().replace(b'"', rng.choice(QUOTES), 3),
    lambda rng, text: text.encode().replace(b"2", rng.choice(TWOS), 1),
    lambda rng, text: text.replace("{", '{"a":' + nested(rng.choice([3, 30, 70, 20_000])) + ",", 1).encode(),
    lambda rng, text: text.replace("{", "{" + text[1:-1] + ",", 1).encode(),
    lambda rng, text: text.encode() + b" " * rng.choice([4 << 20, 33 << 20]),
    lambda rng, text: rng.randbytes(rng.randrange(300)),
    lambda rng, text: b"",
]


def written(rng: Random, document: Document, *, raw: float = 0.08) -> bytes:
    text = json.dumps(document)
    return rng.choice(RAW)(rng, text) if rng.random() < raw else text.encode()


def hostile_layout(rng: Random) -> dict[str, bytes]:
    """The files of an image layout; somewhere in it something is wrong."""
    wrong = rng.choice(
        ["config", "config", "config", "manifest", "manifest", "index", "index", "all", "digests"]
    )

    def touched(document: Document, *names: str) -> Document:
        return changed(rng, document, rng.choice([1, 1, 2, 4])) if wrong in (*names, "all") else document

    def bytes_of(document: Document, name: str) -> bytes:
        return written(rng, document, raw=0.1 if wrong in (name, "all") else 0)

    config = bytes_of(touched(config_document(), "config"), "config")
    manifest = bytes_of(touched(manifest_document(config), "manifest"), "manifest")
    top = manifest
    kind = MANIFEST_TYPE
    blobs = [LAYER, config, manifest]
    if rng.random() < 0.2:  # an index for several platforms
        top = bytes_of(touched(index_document(manifest), "manifest"), "manifest")
        kind = INDEX_TYPE
        blobs.append(top)
    files = {f"blobs/sha256/{blob(data)[7:]}": data for data in blobs}
    if wrong == "digests":
        name = rng.choice([*files])
        data = files.pop(name)
        files[rng.choice([name, name.upper(), "blobs/sha256/" + "0" * 64])] = rng.choice(
            [data, data[:-1], data + b"x", b""]
        )
    files["index.json"] = bytes_of(touched(index_document(top, kind), "index"), "index")
    version = rng.choice(["1.0.0"] * 20 + ["2.0.0", "", "1", "x"])
    files["oci-layout"] = json.dumps({"imageLayoutVersion": version}).encode()
    return files


def hostile_docker(rng: Random) -> dict[str, bytes]:
    """The files of a docker-archive from before docker 25."""
    config = written(rng, changed(rng, config_document(), rng.choice([0, 1, 2])))
    layer = "1" * 64 + "/layer.tar"
    item = {"Config": f"{blob(config)[7:]}.json", "RepoTags": ["old:1"], "Layers": [layer]}
    document = changed(rng, [item], rng.choice([0, 1, 1, 2]))
    return {layer: LAYER, f"{blob(config)[7:]}.json": config, "manifest.json": written(rng, document)}
