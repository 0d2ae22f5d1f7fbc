"""Image references in docker's grammar: ``[host[:port]/]repo[:tag][@digest]``.

A reference keeps the name as the user wrote it; `familiar` is the form for display and storage, `canonical`
the full name of registries and containerd.
"""

import re
from dataclasses import dataclass

from layerstore.digest import Digest
from layerstore.errors import InvalidReference

DEFAULT_TAG = "latest"
_DEFAULT_DOMAIN = "docker.io"
_NAME_LIMIT = 255

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(?::[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; `tag` is None only when a digest was given without a tag."""

    domain: str | None
    path: str
    tag: str | None
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        """The name without tag and digest, as written."""
        return self.path if self.domain is None else f"{self.domain}/{self.path}"

    @property
    def full_repository(self) -> str:
        """The full repository name of registries and containerd: ``debian`` is
        ``docker.io/library/debian``.
        """
        domain, path = self.domain or _DEFAULT_DOMAIN, self.path
        if domain == "index.docker.io":
            domain = _DEFAULT_DOMAIN
        return (
            f"{domain}/library/{path}"
            if domain == _DEFAULT_DOMAIN and "/" not in path
            else f"{domain}/{path}"
        )

    @property
    def familiar(self) -> str:
        """Repository and tag, as in listings and ``index.json``."""
        return self.repository if self.tag is None else f"{self.repository}:{self.tag}"

    @property
    def canonical(self) -> str:
        """The full name: ``debian`` is ``docker.io/library/debian:latest``."""
        return self.full_repository if self.tag is None else f"{self.full_repository}:{self.tag}"

    def __str__(self) -> str:
        return self.familiar if self.digest is None else f"{self.familiar}@{self.digest}"


def parse(text: str) -> Reference:
    """Parse a reference; InvalidReference when it does not follow the grammar."""
    name, at, digest_text = text.partition("@")
    digest = Digest(digest_text) if at else None
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidReference(f"invalid reference {text!r}: {tag!r} is not a valid tag")
    domain, path = _split_domain(name)
    if not path or not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise InvalidReference(f"invalid reference {text!r}: {_name_fault(path)}")
    if domain is not None and not _DOMAIN.fullmatch(domain):
        raise InvalidReference(f"invalid reference {text!r}: {domain!r} is not a valid host name")
    if len(name) > _NAME_LIMIT:
        raise InvalidReference(
            f"invalid reference {text!r}: the name is longer than {_NAME_LIMIT} characters"
        )
    if domain is None and re.fullmatch(r"[0-9a-f]{64}", path):
        raise InvalidReference(f"invalid reference {text!r}: a name cannot look like an image ID")
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return Reference(domain, path, tag, digest)


def parse_tag(text: str) -> Reference:
    """Parse a reference that names an image; InvalidReference when it has a digest."""
    ref = parse(text)
    if ref.digest is not None:
        raise InvalidReference(f"invalid reference {text!r}: an image cannot be named by a digest")
    return ref


def _split_tag(name: str) -> tuple[str, str | None]:
    """Split off the tag: the colon after the last slash (one before it is a port)."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail or tail.endswith("]"):
        return name, None
    return head, tail


def _split_domain(name: str) -> tuple[str | None, str]:
    """Split off the host, by docker's rule: a first component with a dot, a colon, capitals, or localhost."""
    first, slash, rest = name.partition("/")
    if slash and is_host(first):
        return first, rest
    return None, name


def _name_fault(path: str) -> str:
    if not path:
        return "the repository name is missing"
    if path != path.lower():
        return "the repository name must be lower case"
    return f"{path!r} is not a valid repository name"


def is_tag(value: object) -> bool:
    """Whether a value of a document can be a tag."""
    return isinstance(value, str) and _TAG.fullmatch(value) is not None


def is_host(first: str) -> bool:
    """Whether the first component of a name is a registry's host: by its dot, colon, capital or name."""
    return any(c in first for c in ".:") or first == "localhost" or first != first.lower()


def is_domain(text: str) -> bool:
    """Whether a text can be a registry's ``host[:port]``."""
    return _DOMAIN.fullmatch(text) is not None
