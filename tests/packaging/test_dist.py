"""The source archive and the wheel: what is in them, their metadata, and that a plain install works."""

import email
import os
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("overlayfs_py/", "layerstore/")
GENERATED = ("PKG-INFO", "setup.cfg", "overlayfs_py.egg-info/")  # what setuptools adds to a source archive

slow = pytest.mark.slow
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, their metadata checked (`scripts/dist`)."""
    directory = tmp_path_factory.mktemp("dist")
    run(ROOT / "scripts/dist", directory)
    return directory


@pytest.fixture(scope="module")
def sources() -> set[str]:
    """Every file that git knows or would take in."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    words = ("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return {name for name in run(*words).split("\0") if name and (ROOT / name).exists()}


@slow
def test_the_source_archive_is_the_repository(built: Path, sources: set[str]) -> None:
    """Documents, tests, scripts and the change log are in it, and nothing that git does not hold."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        modes = {member.name.partition("/")[2]: member.mode for member in archive}
    assert {name for name in names if not name.startswith(GENERATED)} == sources
    assert modes["scripts/setup"] & 0o111


@slow
def test_the_wheel_is_both_packages(built: Path, sources: set[str]) -> None:
    """Every file of theirs, with the marks of typed packages, the unit and the example; no tests."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = email.message_from_bytes(
            wheel.read(next(n for n in wheel.namelist() if n.endswith("/METADATA")))
        )
    assert names == {name for name in sources if name.startswith(PACKAGES)}
    assert {"overlayfs_py/py.typed", "layerstore/py.typed"} <= names
    assert metadata["License-Expression"] == "Apache-2.0"
    assert not [
        one for one in metadata.get_all("Requires-Dist", []) if "pyfuse3" in one and "extra ==" not in one
    ]


def test_a_plain_install_needs_no_compiler() -> None:
    """pyfuse3, which has no wheel, is an extra; the repository's own installations take it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [one for one in project["dependencies"] if one.startswith("pyfuse3")]
    assert project["optional-dependencies"]["pyfuse3"]
    for script in ("setup", "install"):
        assert "[pyfuse3" in (ROOT / "scripts" / script).read_text()


def interpreter(version: str) -> str:
    """A Python of that version: on the PATH, or pyenv's; without one the test is skipped."""
    beside = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for one in (shutil.which(f"python{version}"), *beside.glob(f"{version}.*/bin/python{version}")):
        if one and subprocess.run([one, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(one)
    pytest.skip(f"no Python {version} on this machine")


@slow
@pytest.mark.root
@pytest.mark.fuse
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_wheel_mounts_and_commits(built: Path, version: str) -> None:
    """In a clean virtual environment, without a compiler and pyfuse3 (`scripts/try-wheel`)."""
    python = interpreter(version)
    assert "mounts and commits" in run(ROOT / "scripts/try-wheel", next(built.glob("*.whl")), python)
