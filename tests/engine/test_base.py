"""Errors to errnos, engines by name."""

import errno
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from overlayfs_py.engine import ENGINES, open_engine
from overlayfs_py.engine.base import EngineCapabilities, ErrorTranslator
from overlayfs_py.errors import EngineUnavailable
from overlayfs_py.options import ServiceOptions


def test_oserror_keeps_its_errno() -> None:
    assert ErrorTranslator().reply_error("open", OSError(errno.ENOSPC, "full")) == errno.ENOSPC


def test_anything_else_is_eio_with_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The same defect a thousand times is one traceback, not a thousand."""
    errors = ErrorTranslator()

    def fail() -> int:
        try:
            raise ValueError("a defect")
        except ValueError as error:
            return errors.reply_error("read", error)

    with caplog.at_level(logging.ERROR):
        assert [fail() for _ in range(3)] == [errno.EIO] * 3
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert len(caplog.records) == 3


def test_oserror_without_errno_is_eio() -> None:
    assert ErrorTranslator().reply_error("read", OSError("text only")) == errno.EIO


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "native"}, "engine=native"),
        ({"engine": "pyfuse3", "data": "passthrough"}, "data=passthrough"),
        ({"engine": "pyfuse3", "data": "writeback"}, "data=writeback"),
    ],
)
def test_engine_that_is_not_there(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(ENGINES, "native", raising=False)
    overlay = cast(Any, SimpleNamespace())
    with pytest.raises(EngineUnavailable, match=says):
        open_engine(overlay, ServiceOptions(**options))


def _engines(
    monkeypatch: pytest.MonkeyPatch, native: Exception | None, pyfuse3: Exception | None = None
) -> None:
    """Stand-ins for both engines; the exceptions are what loading each raises."""

    def load(module: str) -> Any:
        name = "native" if module == ENGINES["native"] else "pyfuse3"
        refusal = native if name == "native" else pyfuse3
        if refusal is not None:
            raise refusal
        capabilities = EngineCapabilities(name=name)
        return SimpleNamespace(create=lambda overlay, options: SimpleNamespace(capabilities=capabilities))

    monkeypatch.setattr("overlayfs_py.engine.import_module", load)


def test_auto_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    _engines(monkeypatch, None)
    found = open_engine(cast(Any, None), ServiceOptions()).capabilities
    assert (found.name, found.fallback) == ("native", "")


@pytest.mark.parametrize("reason", [EngineUnavailable("Linux is too old"), ImportError("no such module")])
def test_auto_falls_back_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: Exception
) -> None:
    _engines(monkeypatch, reason)
    found = open_engine(cast(Any, None), ServiceOptions()).capabilities
    assert found.name == "pyfuse3"
    assert str(reason) in found.fallback
    assert str(reason) in caplog.text
    with pytest.raises(EngineUnavailable, match=str(reason)):
        open_engine(cast(Any, None), ServiceOptions(engine="native"))


@pytest.mark.parametrize(
    "missing", ["No module named 'pyfuse3'", "libfuse3.so.3: cannot open shared object file"]
)
def test_a_missing_pyfuse3_is_one_line_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """engine=auto says it after the reason why native is not taken."""
    _engines(monkeypatch, EngineUnavailable("Linux is too old"), ImportError(missing))
    for engine in ("pyfuse3", "auto"):
        with pytest.raises(EngineUnavailable) as caught:
            open_engine(cast(Any, None), ServiceOptions(engine=engine))
        said = str(caught.value)
        assert "\n" not in said
        assert missing in said
        assert "pip install 'overlayfs-py[pyfuse3]'" in said
        assert ("Linux is too old" in said) == (engine == "auto")


@pytest.mark.parametrize(
    ("system", "release", "says"),
    [
        ("Linux", "5.11.0-7-generic", "5.12"),
        ("Linux", "4.19", "5.12"),
        ("FreeBSD", "14.2-RELEASE", "FreeBSD"),
    ],
)
def test_native_needs_a_kernel(monkeypatch: pytest.MonkeyPatch, system: str, release: str, says: str) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.release", lambda: release)
    with pytest.raises(EngineUnavailable, match=says):
        open_engine(cast(Any, None), ServiceOptions(engine="native"))
