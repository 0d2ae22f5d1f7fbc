"""docker's credential helpers: ``docker-credential-NAME get|store|erase``, JSON on standard input and output.

The program is searched in the absolute directories of PATH and started without a shell; its name comes from a
file and must not be a path.
"""

from __future__ import annotations

import json
import re
import subprocess

from layerstore import environment
from layerstore.errors import LayerstoreError
from layerstore.transport.errors import line
from overlayfs_py.service.subprocesses import running

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECONDS = 60  # it may prompt the user
_NOT_FOUND = "credentials not found"  # the text of every helper


def get(helper: str, server: str) -> tuple[str, str] | None:
    """Return user name and secret for a server; None when the helper has none."""
    try:
        answer = _run(helper, "get", server)
    except _HelperFailed as error:
        if _NOT_FOUND in str(error):
            return None
        raise
    try:
        document = json.loads(answer)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise LayerstoreError(f"docker-credential-{helper} returned no valid credentials") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise LayerstoreError(f"docker-credential-{helper} returned no valid credentials")
    return (username, secret) if username or secret else None


def store(helper: str, server: str, username: str, secret: str) -> None:
    _run(helper, "store", json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))


def erase(helper: str, server: str) -> None:
    try:
        _run(helper, "erase", server)
    except _HelperFailed as error:
        if _NOT_FOUND not in str(error):
            raise


class _HelperFailed(LayerstoreError):
    """The helper failed."""


def _run(helper: str, verb: str, words: str) -> bytes:
    if not _NAME.fullmatch(helper):
        raise LayerstoreError(f"invalid name of a credential helper: {line(repr(helper))}")
    name = f"docker-credential-{helper}"
    program = environment.find_program(name)
    if program is None:
        raise LayerstoreError(f"the credential helper {name} is not installed")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        with running([str(program), verb], **streams) as process:
            out, err = process.communicate(words.encode(), _SECONDS)
    except subprocess.TimeoutExpired:
        raise LayerstoreError(f"{name} {verb} did not finish within {_SECONDS} seconds") from None
    except OSError as error:
        raise LayerstoreError(f"cannot run {program}: {error.strerror}") from None
    if process.returncode != 0:
        said = line((out + b" " + err).decode(errors="replace"))
        raise _HelperFailed(f"{name} {verb} failed: {said or process.returncode}")
    return bytes(out)
