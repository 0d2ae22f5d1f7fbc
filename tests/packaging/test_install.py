"""`make install` and `make uninstall` into a directory of their own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("overlayfs-py", "overlayfs-pyctl", "layerstore")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def make(target: str, destination: Path, prefix: str = "/usr/local") -> str:
    words = ["make", "-s", "-C", str(ROOT), target, f"DESTDIR={destination}", f"PREFIX={prefix}"]
    environment = {**os.environ, "PYTHON": "/usr/bin/python3"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def everything_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tree with a few directories and files of somebody else's, and our installation."""
    destination = tmp_path_factory.mktemp("destination")
    (destination / "usr/local/bin").mkdir(parents=True)
    (destination / "usr/local/bin/other").write_text("someone else's\n")
    make("install", destination)
    yield destination
    make("uninstall", destination)


def test_commands_unit_and_example_are_in_place(installed: Path) -> None:
    """The three commands, the unit with their real path, and an example that the unit does not read."""
    for command in COMMANDS:
        link = installed / "usr/local/bin" / command
        assert os.readlink(link) == f"/usr/local/lib/overlayfs-py/bin/{command}"
        assert (installed / os.readlink(link).lstrip("/")).is_file()
    unit = (installed / "usr/local/lib/systemd/system/overlayfs-py@.service").read_text()
    assert "ExecStart=/usr/local/bin/overlayfs-py -f --config" in unit
    assert "@BINDIR@" not in unit
    assert (installed / "etc/overlayfs-py/example.toml.sample").is_file()


def test_manual_and_completions_are_in_place(installed: Path) -> None:
    """Where man, bash, zsh and fish look; a page for every verb."""
    share = installed / "usr/local/share"
    pages = {path.name for path in (share / "man/man1").iterdir()}
    assert pages >= {"layerstore.1", "layerstore-commit.1", "layerstore-pull.1", "layerstore-cp.1"}
    assert pages >= {"overlayfs-py.1", "overlayfs-pyctl.1"}
    for command in COMMANDS:
        name = command.replace("-", "_")
        assert f"_{name}_completion" in (share / "bash-completion/completions" / command).read_text()
        zsh = (share / "zsh/site-functions" / f"_{command}").read_text()
        assert zsh.startswith(f"#compdef {command}\n")
        assert (share / "fish/vendor_completions.d" / f"{command}.fish").is_file()


def test_nothing_names_the_place_it_was_built_in(installed: Path) -> None:
    """A package built in DESTDIR runs in PREFIX."""
    home = installed / "usr/local/lib/overlayfs-py"
    texts = [path for path in (home / "bin").iterdir() if path.is_file() and not path.is_symlink()]
    assert not [path.name for path in [*texts, home / "pyvenv.cfg"] if str(installed) in path.read_text()]


def test_nothing_of_the_tools_is_installed(installed: Path) -> None:
    """Only what the commands need: no pip, no test or lint tools."""
    packages = next((installed / "usr/local/lib/overlayfs-py/lib").glob("python*/site-packages"))
    assert not {"pip", "pytest", "ruff", "mypy", "hypothesis"} & {path.name for path in packages.iterdir()}


def test_uninstall_leaves_nothing_of_ours(tmp_path: Path) -> None:
    """Installed twice and removed, only what was there before is left, and the user's own configuration."""
    (tmp_path / "opt/empty").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    before = everything_below(tmp_path)
    make("install", tmp_path, prefix="/opt")
    make("install", tmp_path, prefix="/opt")
    assert "etc/systemd/system/overlayfs-py@.service" in everything_below(tmp_path)
    mine = tmp_path / "etc/overlayfs-py/mine.toml"
    mine.write_text("mountpoint = '/x'\n")
    make("uninstall", tmp_path, prefix="/opt")
    assert everything_below(tmp_path) == before | {"etc/overlayfs-py", "etc/overlayfs-py/mine.toml"}
    assert "nothing is installed" in make("uninstall", tmp_path, prefix="/opt")


def test_an_impossible_prefix_is_one_clear_line(tmp_path: Path) -> None:
    """A relative PREFIX is refused before anything is written."""
    words = ["make", "-s", "-C", str(ROOT), "install", f"DESTDIR={tmp_path}", "PREFIX=usr"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "install: PREFIX must be an absolute path, not 'usr'" in done.stderr
    assert everything_below(tmp_path) == set()
