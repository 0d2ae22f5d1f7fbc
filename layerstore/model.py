"""Frozen OCI documents, parsed strictly: descriptor, manifest, index, image configuration.

The caller keeps the bytes of a parsed document, since its digest is that of those bytes; a document is never
written again from its parsed form. Parsing refuses what other tools have misread: oversized or deeply nested
JSON, a document that is a manifest and an index at once (CVE-2021-41190), a media type that contradicts the
content, negative sizes, digests outside the grammar.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import msgspec

from layerstore import limits, media
from layerstore.digest import Digest
from layerstore.errors import InvalidDigest, InvalidImage, LimitExceeded, UnsupportedMedia

_MAX_SIZE = (1 << 63) - 1  # int64, as the specification has it

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ESCAPED_BYTE = re.compile(r"\0([89a-f][0-9a-f])")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class HostPath(str):
    """A path of this machine in a document of this package: any bytes, in any locale.

    In JSON a byte that is not UTF-8 is written as NUL, which no path contains, and two hexadecimal digits.
    """

    __slots__ = ()

    @property
    def text(self) -> str:
        """Return the text of the document."""
        path = os.fsencode(self).decode(errors="surrogateescape")
        return _NOT_UTF8.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path)

    @classmethod
    def parse(cls, text: str) -> "HostPath":
        """Return the path of a document's text; ValueError for an invalid one."""
        path = _ESCAPED_BYTE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)
        if "\0" in path:
            raise ValueError("a path contains a NUL")
        return cls(os.fsdecode(path.encode(errors="surrogateescape")))


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The platform of an image."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] = msgspec.field(default_factory=list, name="os.features")
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A pointer to a blob: type, digest and exact size."""

    media_type: str
    digest: Digest
    size: int
    urls: list[str] = []
    annotations: dict[str, str] | None = None
    data: str = ""
    platform: Platform | None = None
    artifact_type: str = ""


def _none() -> list[Descriptor]:
    """Return the default of a list that is written also when it is empty."""
    return []


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image: its configuration and its layers, bottom first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = msgspec.field(default_factory=_none)
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    manifests: Any = msgspec.UNSET


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A list of manifests: of an image layout, or of one image for several platforms."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    manifests: list[Descriptor] = msgspec.field(default_factory=_none)
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    layers: Any = msgspec.UNSET
    config: Any = msgspec.UNSET


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The diffIDs of an image's layers, bottom first."""

    type: str = "layers"
    diff_ids: list[Digest] = []


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of the image's history; an empty layer has no entry in the manifest."""

    created: str | None = None
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class _Runtime(msgspec.Struct, frozen=True, rename="pascal"):
    """The fields of the object ``config`` in a configuration, each of them optional; only used to check
    it.
    """

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    labels: dict[str, str | None] | None = None
    working_dir: str | None = None
    stop_signal: str | None = None


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image's configuration: the fields that this package reads; `document` has all."""

    architecture: str = ""
    os: str = ""
    created: str | None = None
    author: str | None = None
    variant: str | None = None
    rootfs: RootFS = RootFS()
    history: list[History] | None = None
    config: dict[str, Any] | None = None

    @property
    def steps(self) -> list[History]:
        return self.history or []


T = TypeVar("T")


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest:
    """Parse and check a manifest that a descriptor (or a registry) calls `media_type`."""
    manifest = _decode_as_go(raw, Manifest, "manifest", keep=frozenset({"manifests"}))
    if manifest.manifests is not msgspec.UNSET:
        raise InvalidImage("invalid manifest: it has both layers and manifests")
    _check_document(manifest.schema_version, manifest.media_type, media_type, media.MANIFESTS, "manifest")
    most = limits.current().max_layers
    if len(manifest.layers) > most:
        raise LimitExceeded(f"the manifest lists {len(manifest.layers)} layers, more than {most}", "layers")
    for descriptor in (manifest.config, *manifest.layers):
        _check_descriptor(descriptor)
    return manifest


def parse_index(raw: bytes, media_type: str = "", *, is_index_file: bool = False) -> Index:
    """Parse and check an index, be it ``index.json`` (`is_index_file`, which may be larger) or a blob."""
    both = frozenset({"config", "layers"})
    index = _decode_as_go(raw, Index, "index", keep=both, is_index_file=is_index_file)
    if index.layers is not msgspec.UNSET or index.config is not msgspec.UNSET:
        raise InvalidImage("invalid index: it has the fields of a manifest too")
    _check_document(index.schema_version, index.media_type, media_type, media.INDEXES, "index")
    for descriptor in index.manifests:
        _check_descriptor(descriptor)
    return index


def parse_config(raw: bytes) -> ImageConfig:
    """Parse and check an image configuration."""
    config = _decode_as_go(raw, ImageConfig, "image configuration", keep=frozenset({"config"}))
    if config.rootfs.type != "layers":
        raise InvalidImage(f"invalid image configuration: rootfs type {config.rootfs.type!r} is not 'layers'")
    try:
        msgspec.convert(config.config or {}, _Runtime)
    except msgspec.ValidationError as error:
        raise InvalidImage(f"invalid image configuration: {error} of config") from None
    return config


def parse_list(raw: bytes, kind: type[T], what: str) -> list[T]:
    """Decode a list of documents written by Go programs, such as docker's ``manifest.json``."""
    return _decode_as_go(raw, list[kind], what)  # type: ignore[valid-type]


def parse_document(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object with all its fields, under the same limits."""
    return _decode(raw, dict[str, Any], "document")


def decode(raw: bytes, kind: type[T]) -> T:
    """Decode a document of this package as `kind`, under the same limits."""
    return _decode(raw, kind, kind.__name__.lower())


def encode(document: object) -> bytes:
    """Encode compact JSON with sorted keys: equal documents are equal bytes."""
    return msgspec.json.encode(document, order="sorted", enc_hook=_encode_own)


def _decode_as_go(
    raw: bytes, kind: type[T], what: str, *, keep: frozenset[str] = frozenset(), is_index_file: bool = False
) -> T:
    """Decode a document written by Go programs: null means the default of a field.

    Top-level fields in `keep` are left unchanged.
    """
    if b"null" not in raw:
        return _decode(raw, kind, what, is_index_file=is_index_file)
    document = _without_nulls(_decode(raw, Any, what, is_index_file=is_index_file), keep)
    with _invalid(what):
        return msgspec.convert(document, kind, dec_hook=_decode_own)


def _without_nulls(value: Any, keep: frozenset[str] = frozenset()) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: one if key in keep else _without_nulls(one)
        for key, one in value.items()
        if one is not None or key in keep
    }


def _decode(raw: bytes, kind: type[T], what: str, *, is_index_file: bool = False) -> T:
    allowed = limits.current()
    name, most = ("index", allowed.max_index) if is_index_file else ("document", allowed.max_document)
    if len(raw) > most:
        raise LimitExceeded(f"the {what} is larger than {most} bytes", name)
    _check_depth(raw, what, allowed.max_depth)
    with _invalid(what):
        return msgspec.json.decode(raw, type=kind, dec_hook=_decode_own)


@contextmanager
def _invalid(what: str) -> Iterator[None]:
    try:
        yield
    except InvalidDigest as error:
        raise InvalidImage(f"invalid {what}: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidImage(f"invalid {what}: {error}") from None


def _check_depth(raw: bytes, what: str, most: int) -> None:
    depth = 0
    for token in _TOKEN.finditer(raw):
        char = raw[token.start()]
        if char in b"[{":
            depth += 1
            if depth > most:
                raise LimitExceeded(f"the {what} is nested deeper than {most} levels", "depth")
        elif char in b"]}":
            depth -= 1


def _check_document(version: int, inner: str, outer: str, allowed: frozenset[str], what: str) -> None:
    """Check that the media type in the document and that of its descriptor agree and are of this kind."""
    if version != 2:
        raise UnsupportedMedia(f"unsupported {what}: schemaVersion {version} is not 2")
    if inner and outer and inner != outer:
        raise InvalidImage(f"invalid {what}: its media type is {inner}, but its descriptor says {outer}")
    if (inner or outer) and (inner or outer) not in allowed:
        raise InvalidImage(f"invalid {what}: its media type is {inner or outer}")


def _check_descriptor(descriptor: Descriptor) -> None:
    if not 0 <= descriptor.size <= _MAX_SIZE:
        raise InvalidImage(
            f"invalid descriptor of {descriptor.digest}: a size of {descriptor.size} is impossible"
        )


def _decode_own(kind: type, value: object) -> object:
    if kind is Digest:
        return Digest(cast(str, value))
    if kind is HostPath:
        return HostPath.parse(cast(str, value))
    raise NotImplementedError(kind)


def _encode_own(value: object) -> object:
    if isinstance(value, HostPath):
        return value.text
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(type(value))
