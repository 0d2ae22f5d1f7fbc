"""What the documents promise is what the code does."""

import re
import tomllib
from pathlib import Path

from overlayfs_py import __version__
from overlayfs_py.options.config import read_config
from overlayfs_py.options.table import ROWS

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    """The example is a valid file with its comments taken away as well."""
    text = (ROOT / "overlayfs_py/service/example.toml").read_text()
    for name, content in (("as-is", text), ("all", re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))):
        path = tmp_path / f"{name}.toml"
        path.write_text(content)
        mountpoint, pairs = read_config(path)
        assert mountpoint == b"/srv/NAME/merged"
        assert {option for option, _ in pairs} <= ROWS.keys()


def test_one_version_everywhere() -> None:
    """pyproject.toml, the package and the newest heading of the change log agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    """Relative links of the markdown files name files that exist."""
    dead = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert not dead
