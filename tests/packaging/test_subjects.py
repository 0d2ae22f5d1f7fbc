"""`scripts/subjects`, which `make check` runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG, LIMIT = "x" * 73, "é" * 72


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the script, and a commit on main whose subject is too long."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/subjects", tmp_path / "scripts")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, LONG)
    git(tmp_path, "switch", "--quiet", "--create", "topic")
    return tmp_path


def git(repository: Path, *words: str) -> None:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *who, *words], cwd=repository, check=True, env={"PATH": "/usr/bin:/bin"})


def commit(repository: Path, subject: str) -> None:
    git(repository, "commit", "--quiet", "--allow-empty", "--message", f"{subject}\n\n{LONG} in the body")


def subjects(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(repository / "scripts/subjects"), *words]
    return subprocess.run(
        command, cwd=repository, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )


def test_a_new_commit_with_a_long_subject_is_named(repository: Path) -> None:
    """72 characters pass, 73 do not; commits of main and of the base that is given are not new."""
    commit(repository, LIMIT)
    assert subjects(repository).returncode == 0
    commit(repository, LONG)
    found = subjects(repository)
    assert found.returncode == 1
    assert found.stdout.count("\n") == 1
    assert f"73 characters, at most 72 are allowed: {LONG}" in found.stdout
    assert subjects(repository, "HEAD").returncode == 0


def test_what_origin_has_is_not_new(repository: Path) -> None:
    """The default branch of origin is the base where there is one."""
    commit(repository, LONG)
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert subjects(repository).returncode == 0


def test_an_unpacked_source_archive_has_no_commits(tmp_path: Path) -> None:
    """Nothing is checked there."""
    shutil.copy(ROOT / "scripts/subjects", tmp_path)
    done = subprocess.run([tmp_path / "subjects"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0
