"""``-c INSTRUCTION`` as docker commit understands it."""

import json
from pathlib import Path
from typing import Any

import pytest

from layerstore.image.instructions import apply, parse_duration
from layerstore.image.words import InvalidInstruction, logical_lines

SECOND = 10**9


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["/bin/sh", "-l"]'], {"Cmd": ["/bin/sh", "-l"]}),
        (["CMD echo  hi"], {"Cmd": ["/bin/sh", "-c", "echo  hi"]}),
        (["cmd []"], {"Cmd": []}),
        (["CMD ['x']"], {"Cmd": ["/bin/sh", "-c", "['x']"]}),
        (["ENTRYPOINT /run me"], {"Entrypoint": ["/bin/sh", "-c", "/run me"]}),
        (["ENV A=b C=d"], {"Env": ["A=b", "C=d"]}),
        (["ENV A=b", "ENV B=$A-${A}"], {"Env": ["A=b", "B=b-b"]}),
        (["ENV A one two  three"], {"Env": ["A=one two  three"]}),
        (["ENV A='x y' B=\"p q\" C=r\\ s"], {"Env": ["A=x y", "B=p q", "C=r s"]}),
        (["ENV A=${N:-def} B=${N:+x} C=\\$N D='$N'"], {"Env": ["A=def", "B=", "C=$N", "D=$N"]}),
        (['ENV A="a\\"b\\n"'], {"Env": ['A=a"b\\n']}),
        (["EXPOSE 80 443/tcp 53/UDP"], {"ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "53/udp": {}}}),
        (["EXPOSE 127.0.0.1:8080:80 0"], {"ExposedPorts": {"80/tcp": {}, "0/tcp": {}}}),
        (["ENV A=$1-${2}-$$x"], {"Env": ["A=--x"]}),
        (["ENV A=1", "ENV B=${A:?no}"], {"Env": ["A=1", "B=1"]}),
        (["USER a b"], {"User": "a b"}),
        (["WORKDIR /a//b/"], {"WorkingDir": "/a//b/"}),
        (["EXPOSE 1-3"], {"ExposedPorts": {"1/tcp": {}, "2/tcp": {}, "3/tcp": {}}}),
        (['LABEL a=b "c d"="e f"'], {"Labels": {"a": "b", "c d": "e f"}}),
        (["ONBUILD RUN make"], {"OnBuild": ["RUN make"]}),
        (["STOPSIGNAL SIGKILL"], {"StopSignal": "SIGKILL"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["USER daemon:adm"], {"User": "daemon:adm"}),
        (['VOLUME /a /b'], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f x"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 90 * SECOND,
                             "Timeout": SECOND // 2, "Retries": 3}},
        ),
        (['HEALTHCHECK CMD ["true"]'], {"Healthcheck": {"Test": ["CMD", "true"]}}),
        (["ENV A=1\nUSER x", "# a comment"], {"Env": ["A=1"], "User": "x"}),
        (["LABEL a=1 \\\n  b=2"], {"Labels": {"a": "1", "b": "2"}}),
    ],
)  # fmt: skip
def test_one(changes: list[str], expected: dict[str, Any]) -> None:
    assert apply({}, changes) == expected


def test_merging_with_the_parent() -> None:
    parent = {"Env": ["PATH=/bin", "A=1"], "Labels": {"x": "1"}, "Cmd": ["a"], "Shell": ["/bin/ash", "-ec"]}
    result = apply(parent, ["ENV A=2 P=$PATH", "LABEL y=2", "ENTRYPOINT go"])
    assert result["Env"] == ["PATH=/bin", "A=2", "P=/bin"]
    assert result["Labels"] == {"x": "1", "y": "2"}
    assert result["Entrypoint"] == ["/bin/ash", "-ec", "go"]
    assert "Cmd" not in result
    assert parent["Env"] == ["PATH=/bin", "A=1"]
    assert parent["Cmd"] == ["a"]


def test_entrypoint_keeps_a_command_given_with_it() -> None:
    assert apply({"Cmd": ["old"]}, ['CMD ["new"]', 'ENTRYPOINT ["e"]'])["Cmd"] == ["new"]
    assert apply({"Entrypoint": ["e"]}, ["ENTRYPOINT []"]) == {}


@pytest.mark.parametrize(
    "change",
    ["RUN make", "FROM x", "FOO", "ENV", "ENV A", "ENV =x", "ENV A=1 B", "EXPOSE x", "EXPOSE 3-1",
     "EXPOSE 70000", "EXPOSE 5-3", "EXPOSE x:2", "CMD [1]", 'CMD ["a"] b', "HEALTHCHECK CMD []",
     "HEALTHCHECK --retries=0 CMD x", "HEALTHCHECK --interval=1us CMD x", "", "# nothing", "WORKDIR $A",
     "LABEL", "ONBUILD ONBUILD RUN x", "ONBUILD FROM x",
     "STOPSIGNAL SIGFOO", "STOPSIGNAL 0", "USER", "USER $A", "VOLUME", 'VOLUME [""]',
     "VOLUME []", "WORKDIR", "HEALTHCHECK",
     "HEALTHCHECK CMD", "HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --foo=1s CMD y", "HEALTHCHECK NONE x",
     "ENV A='x", "ENV A=${B:?x}", "ENV A=${B"],
)  # fmt: skip
def test_refused(change: str) -> None:
    with pytest.raises(InvalidInstruction) as refused:
        apply({}, [change])
    assert str(refused.value).startswith("-c ")
    assert "\n" not in str(refused.value)


def test_durations() -> None:
    assert parse_duration("1h2m3s") == 3723 * SECOND
    assert parse_duration("1.5s") == 1_500_000_000
    assert parse_duration("0") == 0
    with pytest.raises(InvalidInstruction):
        parse_duration("10")


def test_lines() -> None:
    assert list(logical_lines(["A 1", "", "  # no\nB \\\n 2"])) == ["A 1", "B  2"]
    assert list(logical_lines(["A \\"])) == ["A"]


# What `docker commit` made of the same instructions: `sets` in the parent's configuration (null: it has
# gone), or `error`.
RECORD = json.loads((Path(__file__).parent / "data/docker-commit.json").read_text())
ON_PURPOSE = {
    'CMD ["a"] b': "docker drops what follows the list; refused",
    "EXPOSE $P": "docker ignores it; refused",
    "USER $A": "docker ignores it; refused",
    "HEALTHCHECK --interval=5s NONE": "docker ignores the flag; refused",
    "cmd []": "docker keeps the parent's command; none, as it says",
    "CMD": "docker makes it a shell without a command; none",
    "STOPSIGNAL": "docker's commit takes none",
    'VOLUME "/a b"': "docker splits it within the quotes and refuses that",
}


@pytest.mark.parametrize(
    "commit", RECORD["commits"], ids=lambda commit: f"{commit['parent']}: {' + '.join(commit['changes'])}"
)
def test_as_docker_commits(commit: dict[str, Any]) -> None:
    parent = {key: value for key, value in RECORD["parents"][commit["parent"]].items() if key != "OnBuild"}
    changes = commit["changes"]
    try:
        ours: object = _set(apply(parent, changes))
    except InvalidInstruction:
        ours = "refused"
    docker = "refused" if "error" in commit else _set({**parent, **commit["sets"]})
    on_purpose = changes[0] in ON_PURPOSE or changes[0].startswith("STOPSIGNAL")
    assert ours == docker or on_purpose


def _set(config: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty: docker writes some of that, and it means nothing."""
    return {key: value for key, value in config.items() if value}
