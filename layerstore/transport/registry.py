"""A repository of a registry: one function for each request of the OCI distribution specification.

Knows URLs, statuses and headers; `download` and `upload` move the content of blobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from layerstore import limits, media, model, reference
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidDigest, LimitExceeded, UnsupportedMedia
from layerstore.model import Descriptor
from layerstore.transport.auth import Scopes
from layerstore.transport.client import Body, Call, Client
from layerstore.transport.errors import MissingRemote, RegistryError, line
from layerstore.transport.paging import pages

_ACCEPT = ", ".join([media.OCI_INDEX, media.OCI_MANIFEST, media.DOCKER_INDEX, media.DOCKER_MANIFEST])
_DONE = frozenset({200, 201, 202, 203, 204})  # registries differ in which of them they send
_VAGUE = frozenset({"", "application/json", "application/octet-stream", "text/plain"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or an index as the registry has it, byte for byte."""

    descriptor: Descriptor
    raw: bytes


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An upload that the registry has begun: its URL, and the minimum size of all chunks but the last."""

    place: httpx.URL
    least: int = 0


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository. `push` requests write access from the start, so that one token is enough."""

    client: Client
    name: str  # for messages: HOST/PATH
    path: str  # in the API
    push: bool = False

    @property
    def scopes(self) -> Scopes:
        return (scope(self.path, "pull,push" if self.push else "pull"),)

    def manifest(self, word: str, expected: Descriptor | None = None) -> Fetched:
        """Return the manifest of a tag or a digest; with `expected` exactly that one."""
        most = limits.current().max_document
        limit = most if expected is None else min(expected.size, most)
        call = Call(
            method="GET",
            url=f"/v2/{self.path}/manifests/{word}",
            what=f"cannot get {self._shown(word)}",
            scopes=self.scopes,
            ok=frozenset({200}),
            headers={"Accept": _ACCEPT},
        )
        response, raw = self.client.call(call, limit)
        digest = Digest.of(raw)
        wanted = expected.digest if expected is not None else word if ":" in word else None
        if wanted is not None and wanted != digest:
            raise DigestMismatch(f"{self._shown(word)}: the manifest's digest is {digest}")
        _check_claim(response, digest, self._shown(word))
        kind = _media_type(response, raw)
        if kind not in media.MANIFESTS | media.INDEXES:
            raise UnsupportedMedia(f"{self._shown(word)} is not an image: its media type is {line(kind)}")
        return Fetched(Descriptor(media_type=kind, digest=digest, size=len(raw)), raw)

    def tags(self) -> Iterator[str]:
        """Return all tags, read page by page."""
        what = f"cannot list the tags of {self.name}"
        for document in pages(self.client, f"/v2/{self.path}/tags/list", what, self.scopes):
            tags = document.get("tags") or []
            if not isinstance(tags, list) or not all(reference.is_tag(tag) for tag in tags):
                raise RegistryError(f"{self.name}: the registry's list of tags is invalid")
            yield from tags

    def put_manifest(self, word: str, descriptor: Descriptor, raw: bytes) -> None:
        """Push a manifest under a tag or its digest."""
        call = Call(
            method="PUT",
            url=f"/v2/{self.path}/manifests/{word}",
            what=f"cannot push {self._shown(word)}",
            scopes=self.scopes,
            ok=_DONE,
            headers={"Content-Type": descriptor.media_type, "Content-Length": str(len(raw))},
            body=lambda: (raw,),
        )
        response, _ = self.client.call(call)
        _check_claim(response, descriptor.digest, self._shown(word))

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry has a blob in this repository."""
        call = Call(
            method="HEAD",
            url=self.blob_url(digest),
            what=f"cannot look for {digest} in {self.name}",
            scopes=self.scopes,
            ok=frozenset({200}),
        )
        try:
            self.client.call(call)
        except MissingRemote:
            return False
        return True

    def blob(self, digest: Digest, start: int, end: int | None = None) -> Call:
        """Return the request for a blob from byte `start` on, up to `end` if given."""
        ranged = start > 0 or end is not None
        return Call(
            method="GET",
            url=self.blob_url(digest),
            what=f"cannot get the blob {digest} of {self.name}",
            scopes=self.scopes,
            ok=frozenset({200, 206, 416} if ranged else {200}),
            headers={"Range": f"bytes={start}-{'' if end is None else end - 1}"} if ranged else {},
        )

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified."""
        most = limits.current().max_document
        if descriptor.size > most:
            raise LimitExceeded(f"blob {descriptor.digest} is larger than {most} bytes", "document")
        _, raw = self.client.call(self.blob(descriptor.digest, 0), max(1, descriptor.size))
        if Digest.of(raw) != descriptor.digest:
            raise DigestMismatch(f"blob {descriptor.digest}: the content's digest is {Digest.of(raw)}")
        return raw

    def begin_upload(self, digest: Digest, mount_from: str | None = None) -> UploadSession | None:
        """Begin to upload a blob. None: the registry has it, or has mounted it from another repository."""
        query = f"?mount={digest.replace(':', '%3A')}&from={mount_from}" if mount_from else ""
        call = Call(
            method="POST",
            url=f"/v2/{self.path}/blobs/uploads/{query}",
            what=f"cannot push to {self.name}",
            scopes=(*self.scopes, scope(mount_from, "pull")) if mount_from else self.scopes,
            ok=_DONE,
            headers={"Content-Length": "0"},
        )
        response, _ = self.client.call(call)
        if response.status_code == 201 and (mount_from or self.has_blob(digest)):
            return None
        return UploadSession(self.location(response), least_chunk(response))

    def upload_call(self, method: str, place: httpx.URL | str, headers: dict[str, str], body: Body) -> Call:
        """Return a request with a blob, or a part of one."""
        return Call(
            method=method,
            url=str(place),
            what=f"cannot push to {self.name}",
            scopes=self.scopes,
            ok=_DONE | {416} if method == "PATCH" else _DONE,
            headers={"Content-Type": "application/octet-stream", **headers},
            body=body,
        )

    def upload_status(self, place: httpx.URL) -> Call:
        """Return how much of an upload the registry has."""
        return Call(
            method="GET",
            url=str(place),
            what=f"cannot continue an upload to {self.name}",
            scopes=self.scopes,
            ok=_DONE,
        )

    def location(self, response: httpx.Response) -> httpx.URL:
        """Return where an upload continues."""
        location = response.headers.get("location", "")
        if not location:
            raise RegistryError(f"{self.name}: the registry sends no URL for the upload")
        return self.client.target(response.url, location).copy_with(fragment=None)

    def blob_url(self, digest: Digest) -> str:
        return f"/v2/{self.path}/blobs/{digest}"

    def _shown(self, word: str) -> str:
        return f"{self.name}{'@' if ':' in word else ':'}{word}"


def least_chunk(response: httpx.Response) -> int:
    """Return the registry's minimum size of a chunk, 0 when it sends none."""
    said = response.headers.get("oci-chunk-min-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0


def scope(path: str, actions: str) -> str:
    """Return the scope of a token."""
    return f"repository:{path}:{actions}"


def _media_type(response: httpx.Response, raw: bytes) -> str:
    """Return the media type of the response; where that is plain JSON, the one in the document."""
    kind: str = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in _VAGUE:
        return kind
    document = model.parse_document(raw)
    inner = document.get("mediaType")
    if isinstance(inner, str) and inner:
        return inner
    return media.OCI_INDEX if "manifests" in document else media.OCI_MANIFEST


def _check_claim(response: httpx.Response, digest: Digest, what: str) -> None:
    """Return the registry's digest of a manifest, if it sends one."""
    claim = response.headers.get("docker-content-digest")
    if not claim:
        return
    try:
        claimed = Digest(claim)
    except InvalidDigest:
        return  # sha512, say: nothing to compare with
    if claimed != digest:
        raise DigestMismatch(f"{what}: the digest is {digest}, but the registry says {claimed}")
