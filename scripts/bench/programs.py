"""Programs of other people, run in the working directory on the mount."""

import subprocess
from pathlib import Path

from material import GIT, GIT_ENVIRONMENT

IMPORTS = (
    "argparse, asyncio, concurrent.futures, csv, decimal, email.message, http.client, "
    "json, logging, shutil, subprocess, tempfile, unittest, xml.etree.ElementTree"
)


def run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_python() -> None:
    run("bin/python3", "-S", "-c", "import " + IMPORTS, env={"PYTHONHOME": str(Path.cwd())})


def git_status() -> None:
    run(*GIT, "status", "--short", env=GIT_ENVIRONMENT)


def compile_all() -> None:
    run("gcc", "-c", "-O1", "-pipe", *(f"source{number}.c" for number in range(50)))


def unpack() -> None:
    run("tar", "-xf", "archive.tar", "-C", "out")


def remove_unpacked() -> None:
    run("rm", "-rf", "out/tree")


def remove_lower_tree() -> None:
    run("rm", "-rf", "tree")
