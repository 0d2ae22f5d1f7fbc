"""What the documents promise is what the code does."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from overlayfs_py import __version__
from overlayfs_py.options.config import read_config
from overlayfs_py.options.table import ROWS
from tests import wording

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


DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DECISIONS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))[1:]  # the first is the template


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What can follow the # of a link, as GitHub makes it of headings; a repeated one gets a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(document), flags=re.MULTILINE):
        text = re.sub(r"\]\([^)]*\)|[`*\[]", "", heading).strip().lower()
        base = slug = re.sub(r"[^\w -]", "", text).replace(" ", "-")
        again = 0
        while slug in found:
            again += 1
            slug = f"{base}-{again}"
        found.add(slug)
    return found


def dead_links(document: Path) -> list[str]:
    """The relative links, pictures and link definitions of a document that lead nowhere."""
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    forms = r"""\]\(<?([^)\s>]+)[^)]*\)|^\[[^]]+\]:\s*(\S+)|(?:href|src)=["']([^"']+)"""
    dead = []
    for target in ("".join(found) for found in re.findall(forms, text, flags=re.MULTILINE)):
        if re.match(r"\w+:", target):
            continue  # another site's
        name, _, anchor = target.partition("#")
        place = document.parent / name if name else document
        if not place.exists() or (anchor and (place.suffix != ".md" or anchor not in anchors(place))):
            dead.append(target)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_documents_leads_somewhere(document: Path) -> None:
    """Relative links name files that exist, and headings that exist in them."""
    assert not dead_links(document)


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    """The check itself, with each form of a link."""
    (tmp_path / "other.md").write_text(
        "# The `data=` option: *a* [title](x)\n## Twice\n## Twice\n```\n# code\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](#here) [b](other.md#the-data-option-a-title) [c](other.md#twice-1 'Second') [d](https://x.org/#y)\n"
        "`[code](of-no-interest)`\n[e](#there) [f](other.md#twice-2) [g](other.md#code) ![h](no.svg)\n"
        '[i](gone.md#x)\n<img src="lost.png">\n\n[ref]: missing.md\n'
    )
    found = ["#there", "other.md#twice-2", "other.md#code", "no.svg", "gone.md#x", "lost.png", "missing.md"]
    assert dead_links(page) == found


def test_paths_of_the_repository_in_the_documents_exist() -> None:
    """`scripts/setup`, `overlayfs_py/engine`: whoever moves a file mends the text about it."""
    path = re.compile(r"`((?:overlayfs_py|layerstore|scripts|tests|docs)/[^`\s]*)`")
    stale = [
        f"{document.relative_to(ROOT)}: {name}"
        for document in DOCUMENTS
        if document.name != "CHANGELOG.md"
        for name in path.findall(document.read_text())
        if not list(ROOT.glob(name))
    ]
    assert not stale


def test_modules_named_in_the_documents_exist() -> None:
    """`union/owner.py`, `overlayfs_py.options.manual`: a file of that name is in one of the packages."""
    tops = ("overlayfs_py", "layerstore", "scripts", "tests")
    files = {str(path.relative_to(ROOT)) for top in tops for path in ROOT.glob(f"{top}/**/*.py")}
    stale = []
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":
            continue
        text = document.read_text()
        named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
        named += [
            name.replace(".", "/")
            for name in re.findall(r"\b((?:overlayfs_py|layerstore)(?:\.[a-z_]+){2,})\b", text)
        ]
        for name in named:
            around = name.rpartition("/")[0]  # the module of a function
            candidates = (name, f"{name}.py", f"{name}/__init__.py", f"{around}.py")
            if not any(one == path or path.endswith(f"/{one}") for one in candidates for path in files):
                stale.append(f"{document.relative_to(ROOT)}: {name}")
    assert not stale


def test_the_design_names_every_room() -> None:
    """docs/design.md has a line for each package, and one for each module of the union."""
    text = (ROOT / "docs/design.md").read_text()
    rooms = {
        str(path.parent.relative_to(ROOT))
        for top in ("overlayfs_py", "layerstore")
        for path in ROOT.glob(f"{top}/*/**/__init__.py")
    }
    assert not {room for room in rooms if f"`{room}`" not in text}
    table = text.split("| modules of `overlayfs_py/union` |")[1].split("\n\n")[0]
    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    assert named == {path.stem for path in ROOT.glob("overlayfs_py/union/*.py")} - {"__init__"}


# Phrases that say less than the plain verb, which stands beside them.
PHRASES = {
    r"cannot be had|can be had": "is (not) available",
    r"(?:is|are|was|were) told": "returns, prints, reports",
    r"goes? on over": "continues on",
    r"who(?:ever)? asks?\b": "the caller, the client",
    r"nobody answers": "without an answer",
    r"without a word": "silently",
    r"here and now": "at once, inline",
    r"came? to be\b": "was completed",
}


@pytest.mark.parametrize("phrase", PHRASES)
def test_documents_and_scripts_are_in_plain_english(phrase: str) -> None:
    """Short active sentences with the verbs that people use."""
    texts = [
        *DOCUMENTS,
        *ROOT.glob("overlayfs_py/**/*.py"),
        *ROOT.glob("layerstore/**/*.py"),
        *(path for path in ROOT.glob("scripts/**/*") if path.is_file() and path.suffix != ".pyc"),
    ]
    assert not wording.places(rf"\b(?:{phrase})", PHRASES[phrase], texts)


def test_the_index_lists_every_page() -> None:
    """docs/README.md leads to each page of docs/."""
    index = (ROOT / "docs/README.md").read_text()
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert not {page for page in pages if f"]({page})" not in index}


def test_the_index_of_decisions_is_fresh(tmp_path: Path) -> None:
    """It is what `scripts/decisions` makes of the pages."""
    made = tmp_path / "index"
    subprocess.run([ROOT / "scripts/decisions", made], check=True)
    assert (ROOT / "docs/decisions/README.md").read_text() == made.read_text(), "run scripts/decisions"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_its_number_status_and_day(page: Path) -> None:
    """As the template has it: the day is YYYY-MM-DD."""
    title, empty, status = page.read_text().splitlines()[:3]
    assert re.fullmatch(rf"# {page.name[:4]}\. \S.*[^.]", title)
    assert empty == ""
    assert re.match(
        r"Status: (proposed|accepted|replaced by \[\d{4}\]\(\S+\))\. \d{4}-\d\d-\d\d\.(?= |$)", status
    )


def test_decisions_that_are_referred_to_exist() -> None:
    """Sources and documents say "decision 0009" or docs/decisions/0015."""
    numbers = {page.name[:4] for page in DECISIONS} | {"0000"}
    texts = [
        path
        for top in ("overlayfs_py", "layerstore", "tests", "scripts")
        for path in ROOT.glob(f"{top}/**/*.py")
    ]
    stale = [
        f"{path.relative_to(ROOT)}: {number}"
        for path in [*texts, *DOCUMENTS]
        for number in re.findall(r"\bdecisions?[ /](\d{4})\b", path.read_text())
        if number not in numbers
    ]
    assert not stale


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    """`make docs` finds no dead link, no page loads anything from elsewhere, and tables show plain pipes."""
    done = subprocess.run([ROOT / "scripts/docs", tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {str(path.relative_to(tmp_path / "site")): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > len(DOCUMENTS)
    loaded = r"""<(?:link|script|img)\b[^>]*(?:href|src)=["']?(?:https?:)?//[^"'>]*"""
    assert not [found for page in pages.values() for found in re.findall(loaded, page)]
    assert "<code>redirect_dir=on|off|follow|nofollow</code>" in pages["docs/options.html"]
