"""Docker's reference grammar."""

import pytest

from layerstore import reference
from layerstore.digest import Digest
from layerstore.errors import InvalidDigest, InvalidReference

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "familiar", "canonical"),
    [
        ("debian", "debian:latest", "docker.io/library/debian:latest"),
        ("debian:12", "debian:12", "docker.io/library/debian:12"),
        ("me/app", "me/app:latest", "docker.io/me/app:latest"),
        ("docker.io/debian", "docker.io/debian:latest", "docker.io/library/debian:latest"),
        ("index.docker.io/me/app", "index.docker.io/me/app:latest", "docker.io/me/app:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest", "host:5000/a/b:latest"),
        ("localhost/x:y", "localhost/x:y", "localhost/x:y"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("A/b", "A/b:latest", "A/b:latest"),
        ("me/a__b.c-d--e_f", "me/a__b.c-d--e_f:latest", "docker.io/me/a__b.c-d--e_f:latest"),
    ],
)
def test_names(text: str, familiar: str, canonical: str) -> None:
    ref = reference.parse(text)
    assert ref.familiar == familiar
    assert ref.canonical == canonical


def test_with_digest() -> None:
    ref = reference.parse(f"a/b@{DIGEST}")
    assert (ref.tag, ref.digest, str(ref)) == (None, DIGEST, f"a/b@{DIGEST}")
    assert str(reference.parse(f"a:t@{DIGEST}")) == f"a:t@{DIGEST}"
    with pytest.raises(InvalidReference, match="by a digest"):
        reference.parse_tag(f"a@{DIGEST}")


@pytest.mark.parametrize(
    "text",
    ["", ":x", "x:", "Foo", "a//b", "/a", "a/", "a:b:c/d e", "x:" + "t" * 129, "-a", "a..b", "a" * 64, "n" *
    256, "x:\n", "a b", "../../x", "x:../y", "bad_host_/x.y:z z"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        reference.parse(text)


@pytest.mark.parametrize(
    "digest", ["sha256:x", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:../../x", ""]
)
def test_wrong_digest(digest: str) -> None:
    with pytest.raises(InvalidDigest):
        reference.parse(f"a@{digest}")
