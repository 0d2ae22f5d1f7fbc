"""A disk that cannot read a changed file back: the commit names the file, and the store is as it was."""

import errno
import os
from typing import NoReturn

import pytest

import layerstore
from layerstore.errors import Unrepresentable
from tests.layerstore.commands import ROOTFS, Cli, contents, tarball

pytestmark = pytest.mark.root


def test_commit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.run("import", "-", "base:1", stdin=tarball(ROOTFS))
    cli.run("create", "--name", "w", "base:1")
    (cli.root / "workspaces/w/upper/broken").write_bytes(b"x" * 100_000)
    before = contents(cli.root)

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", fail)
        with pytest.raises(Unrepresentable, match="/broken: it cannot be read: Input/output error"):
            layerstore.commit("w", "base:2", root=cli.root)
    assert contents(cli.root) == before
    cli.run("commit", "w", "base:2")
