"""What docker's users type, line by line, and what they read: run with docker or with us, compared.

Each script starts in a directory with a root filesystem (``rootfs.tar``) and an empty store. ``D`` is the
program, ``$HOST`` a registry, ``$URL`` a web server of that directory. What differs from run to run is made
the same. ``python -m tests.layerstore.dialogs`` records what docker says.
"""

import http.server
import json
import os
import re
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.layerstore.commands import ROOTFS, tarball
from tests.layerstore.dockers import Docker, docker_daemon
from tests.layerstore.transport.servers import docker_registry, web_server
from tests.mounts import scratch

RECORD = Path(__file__).parent / "data/docker-dialogs.json"

_WORK = [
    """D import -m 'the base' -c 'CMD ["/bin/sh"]' rootfs.tar base:1""",
    "D create --name work base:1 >/dev/null",
    "D cp new work:/new",
]
SCRIPTS = {
    "change": [
        *_WORK,
        "D cp new work:/etc/hosts",
        "D diff work | sort",
        "D commit -m 'add new' work app:1",
        "D history app:1",
        "D history --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}' app:1",
        "D history -q app:1",
        "D images | sort",
        "D images app:1 --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
        "D inspect -f '{{.Parent}} {{.Comment}} {{.Config.Cmd}} {{.Config.Env}} {{.Config.Labels}}' app:1",
        "D inspect -f '{{json .Config.Env}} {{.Size}} {{.RepoTags}} {{.RepoDigests}}' app:1",
        "D rm work",
    ],
    "commit": [
        *_WORK,
        """D commit -a 'Ada <ada@example.org>' -m more -c 'ENV X=y' -c 'CMD ["a", "b c"]' -p work app:1""",
        "D commit --pause=false work app:2",
        "D inspect -f '{{.Author}}|{{.Comment}}|{{.Config.Env}}|{{.Config.Cmd}}' app:1",
        "D history app:1 --format '{{.CreatedBy}}|{{.Comment}}'",
        "D tag app:1 other",
        "D tag app:1 app:latest",
        "D tag app:1 app:2",
        "D images --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}}' | sort",
        "D images -q --filter dangling=true | wc -l",
        "D rmi $(D images -q --filter dangling=true)",
        "D rmi app:2",
        "D rmi app",
        "D rmi $(D images -q app:1)",
        "D rmi -f $(D images -q app:1)",
        "D rmi nothing",
        "D rmi -f nothing",
        "D rm work nothing",
        "D rmi base:1",
        "D images",
    ],
    "archives": [
        *_WORK,
        "D commit work app:1",
        "D rm work",
        "D save -o both.tar base:1 app:1",
        "stat -c %a both.tar",
        "D save base:1 app:1 | gzip > both.tgz",
        "D save app:1 | bzip2 > app.tbz",
        "D save $(D images -q base:1) > id.tar",
        "D rmi app:1 base:1",
        "D load -i both.tar",
        "D load -i both.tar",
        "D rmi app:1 base:1",
        "D load < both.tgz",
        "D load -q -i app.tbz",
        "D history app:1 --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}'",
        "D rmi app:1 base:1",
        "bzip2 -dc app.tbz | D load",
        "D rmi app:1",
        "D load -i id.tar",
        "D import rootfs.tar app:1",
        "D load -i app.tbz",
        "D load -i nothing",
        "D save nothing",
        "D save -o nothing.tar nothing",
        "ls nothing.tar",
    ],
    "export": [
        *_WORK,
        "D export work > work.tar",
        "D export -o also.tar work",
        "stat -c %a also.tar",
        "tar -tf work.tar new etc/passwd",
        "D import also.tar flat:1",
        "D import - flat:2 < also.tar",
        "cat also.tar | D import -m 'by hand' -c 'ENV A=b' -c 'ENTRYPOINT [\"/go\"]' - flat:3",
        "gzip also.tar",
        "D import also.tar.gz",
        "D import $URL/rootfs.tar url:1",
        "D import $URL/nothing url:2",
        "D import nothing file:1",
        "D history flat:2 --format '{{.CreatedBy}}|{{.Comment}}'",
        "D history flat:3 --format '{{.CreatedBy}}|{{.Comment}}'",
        "D history url:1 --format '{{.Comment}}' | sed s,$URL,URL,",
        "D inspect -f '{{.Config.Entrypoint}} {{.Config.Env}} {{.Parent}}' flat:3",
        "D export nothing",
        "D rm work",
    ],
    "registry": [
        *_WORK,
        "D commit work $HOST/team/app:1",
        "D login -u ann -p secret $HOST",
        "D login $HOST",
        "D push $HOST/team/app:1",
        "D tag $HOST/team/app:1 $HOST/team/app",
        "D push $HOST/team/app",
        "D push -a $HOST/team/app",
        "D tag base:1 $HOST/base:1",
        "D push $HOST/base:1",
        "D images --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}}' | sort",
        "D inspect -f '{{.RepoTags}} {{.RepoDigests}}' $HOST/team/app",
        "D rm work",
        "D rmi $HOST/team/app:1",
        "D rmi $HOST/team/app $HOST/base:1 base:1",
        "D images",
        "D pull $HOST/team/app",
        "D pull $HOST/team/app",
        "D pull $HOST/team/app:1",
        "D pull -q $HOST/team/app:1",
        "D pull -a $HOST/team/app",
        "D pull $HOST/team/app:nothing",
        "D pull $HOST/base:1",
        "D history $HOST/base:1",
        "D images --digests | sort",
        "D push $HOST/team/nothing >/dev/null",
        "D rmi $HOST/team/app:1 $HOST/team/app $HOST/base:1",
        "D logout $HOST",
    ],
    "prune": [
        *_WORK,
        "D commit work",
        "D rm work",
        "echo n | D image prune",
        "D images -q | wc -l",
        "echo y | D image prune",
        "D image prune -f",
        "D images -q | wc -l",
        "echo n | D image prune -a",
        "D image prune -a -f",
        "D images -q | wc -l",
    ],
}

Step = dict[str, Any]  # what was typed, its exit status, the lines it printed


def play(script: Sequence[str], program: Sequence[str], where: Path, host: str) -> list[Step]:
    """Type the lines one after the other; `program` is what ``D`` is."""
    (where / "rootfs.tar").write_bytes(tarball(ROOTFS))
    (where / "new").write_text("hello\n")
    (where / "bin").mkdir()
    (where / "bin/D").write_text("#!/bin/sh\nexec " + " ".join(program) + ' "$@"\n')
    (where / "bin/D").chmod(0o755)
    with web_server(partial(_Quiet, directory=str(where))) as url:
        env = {**os.environ, "PATH": f"{where}/bin:{os.environ['PATH']}", "HOST": host, "URL": url}
        env |= {"DOCKER_CONFIG": str(where / "login"), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        env.pop("REGISTRY_AUTH_FILE", None)
        return [_step(line, where, env) for line in script]


def _step(line: str, where: Path, env: dict[str, str]) -> Step:
    done = subprocess.run(
        ["sh", "-c", line], cwd=where, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100
    )
    text = done.stdout.decode().replace(env["HOST"], "HOST").replace(env["URL"], "URL")
    return {"typed": line, "status": done.returncode, "said": alike(text)}


def alike(text: str) -> list[str]:
    """The lines without what no two runs have in common: IDs, times, sizes of what was compressed, the order
    in which layers move and docker takes images out of an archive; and layers that are removed with an image
    are not counted.
    """
    text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "<ID>", text)
    text = re.sub(r"(Less than a second|About a minute|\d+ (second|minute)s?) ago", "<AGO>", text)
    text = re.sub(r"\bsize: \d+", "size: <N>", text)
    text = re.sub(r"(reclaimed space: ).*", r"\1<SIZE>", text)
    text = re.sub(r" {2,}", "  ", text)
    lines: list[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        is_gone = line.lower() == "deleted: sha256:<id>"
        if not (is_gone and lines and lines[-1] == line):
            lines.append(line)
    for start in ("<ID>: ", "Loaded image: "):
        ordered = iter(sorted(line for line in lines if line.startswith(start)))
        lines = [next(ordered) if line.startswith(start) else line for line in lines]
    return lines


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def recorded() -> dict[str, list[Step]]:
    """What docker 20.10 said."""
    record: dict[str, list[Step]] = json.loads(RECORD.read_text())
    return record


def emptied(docker: Docker) -> None:
    """Nothing in it."""
    for listing, removal in ((("ps", "-aq"), ("rm", "-f")), (("images", "-q"), ("rmi", "-f"))):
        if found := docker.run(*listing).split():
            docker.call(*removal, *dict.fromkeys(found))
    docker.run("image", "prune", "-af")


def ask_docker(docker: Docker, name: str) -> list[Step]:
    """Play a script with docker, against a registry of its own."""
    emptied(docker)
    with scratch() as where, scratch() as there, docker_registry(there) as host:
        return play(SCRIPTS[name], docker.words, where, host)


def main() -> None:
    with scratch() as where, docker_daemon(where) as docker:
        record = {name: ask_docker(docker, name) for name in SCRIPTS}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
