"""``--format``: templates as docker's users write them, and tables and JSON of the listings."""

import json

import pytest

from layerstore.cli.template import InvalidTemplate, compile_template, go_text
from tests.layerstore.commands import Cli

OBJECT = {
    "Id": "sha256:abc",
    "Names": ["a:1", "b:2"],
    "None": None,
    "Yes": True,
    "Count": 3,
    "Mounts": [{"Source": "/a"}, {"Source": {"Path": "/b"}}],
    "Config": {"Env": ["A=b"], "Labels": {"org.x": "1", "b": "2"}, "Cmd": []},
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("{{.Id}}", "sha256:abc"),
        ("{{ .Id }} {{.Count}} {{.Yes}} {{.None}}", "sha256:abc 3 true <no value>"),
        ("{{.Names}} {{.Config.Labels}} {{.Config.Cmd}}", "[a:1 b:2] map[b:2 org.x:1] []"),
        ("{{.Config.Missing}} {{.None.Deeper}}", "<no value> <no value>"),
        ("{{json .Config.Env}} {{json .None}}", '["A=b"] null'),
        ("{{range .Names}}<{{.}}>{{end}}", "<a:1><b:2>"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{range .Names}}{{$.Id}} {{end}}", "sha256:abc sha256:abc "),
        ("{{if .Config.Cmd}}cmd{{else if .Yes}}yes{{else}}no{{end}}", "yes"),
        ("{{with .Config}}{{.Env}}{{end}}{{with .None}}x{{else}}y{{end}}", "[A=b]y"),
        ('{{index .Config.Labels "org.x"}}{{index .Config.Labels "c"}}{{index .Names 1}}', "1b:2"),
        ('{{join .Names ", "}} {{len .Names}}', "a:1, b:2 2"),
        ('{{.Id | upper | printf "%-12s|"}}', "SHA256:ABC  |"),
        ('{{(index (split .Id ":") 1) | title}}', "Abc"),
        ("{{println .Id}}", "sha256:abc\n"),
        ('{{if and .Yes (eq .Count 3)}}{{printf "%d%% %q" .Count .Id}}{{end}}', '3% "sha256:abc"'),
        ('{{or .None "other"}} {{not .Yes}} {{ne .Count 4}}', "other false true"),
        ("a  {{- /* a remark */ -}}  b", "ab"),
        ("a {{- .Id -}} b", "asha256:abcb"),
        ('{{"a\\tb"}}{{`\\t`}}', "a\tb\\t"),
        ("{{truncate .Id 6}}", "sha256"),
        ("{{(index .Mounts 0).Source}} {{(index .Mounts 1).Source.Path | upper}}", "/a /B"),
        ("{{range .Mounts}}{{if (index .).Source}}{{end}}{{end}}{{len (.Config).Env}}", "1"),
        ("{{slice .Id 7}} {{slice .Id 0 6}} {{gt .Count 2}} {{le .Count 2}}", "abc sha256 true false"),
    ],
)
def test_as_go_writes_it(text: str, shown: str) -> None:
    assert compile_template(text)(OBJECT) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Id", "not closed"),
        ("{{.Nothing}}", "there is no field Nothing; there are Id, Names"),
        ("{{.Id.Deeper}}", "has no field Deeper"),
        ("{{range .Names}}", "without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{(index .Mounts 0).Source.Deeper}}", "has no field Deeper"),
        ("{{frobnicate .Id}}", "no function 'frobnicate'"),
        ("{{.Id | .Names}}", "a function must follow"),
        ("{{}}", "a value is missing"),
        ("{{(.Id}}", "( is not closed"),
        ("{{.Id .Id}}", "unexpected"),
        ("{{#}}", "cannot understand '#'"),
        ("{{index .Names 7}}", "the function index cannot be applied"),
        ("{{range .Id}}{{end}}", "cannot range over"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(InvalidTemplate, match=words.replace("(", "\\(").replace("{", "\\{")):
        compile_template(text)(OBJECT)


def test_values() -> None:
    assert go_text({"b": [1, None], "a": {}}) == "map[a:map[] b:[1 <no value>]]"


def test_listings(base: Cli) -> None:
    base.run("tag", "base:1", "two:2")
    assert base.run("images", "--format", "{{.Repository}}:{{.Tag}}") == "base:1\ntwo:2"
    header, line, _ = base.run("images", "--format", "table {{.ID}}\\t{{.Repository}}").splitlines()
    assert header.split("  ")[0] == "IMAGE ID"
    assert line.split() == [base.objects("images")[0]["ID"], "base"]
    assert base.run("images", "-q", "--format", "{{.Tag}}") == "1\n2"
    assert base.run("history", "--format", "{{.Comment}}", "base:1") == "Imported from -"
    assert base.run("history", "-H", "--format", "json", "base:1")
    assert base.run("history", "--no-human", "base:1").splitlines()[1].split()[-3:-2] != ["MB"]
    base.run("create", "--name", "w", "base:1")
    assert base.run("ps", "--format", "{{.Names}} {{.State}}") == "w created"
    assert base.run("df", "--format", "{{.Type}}").splitlines()[0] == "Images"
    assert base.run("inspect", "--format", "{{.State.Status}}", "w") == "created"
    assert base.run("inspect", "-f", "{{range .RepoTags}}{{.}} {{end}}", "base:1") == "base:1 two:2 "
    assert "neither table nor json" in base.fail("images", "--format", "csv", status=2)
    assert "not closed" in base.fail("images", "--format", "{{.ID")
    assert "no field Nope" in base.fail("ps", "--format", "{{.Nope}}")


def test_details_of_df(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_bytes(b"n" * 10_000)
    base.run("commit", "w", "base:2")
    shown = base.run("df", "-v")
    for title in ("Images space usage:", "Layers space usage:", "Workspaces space usage:"):
        assert title in shown
    found = json.loads(base.run("df", "-v", "--format", "json"))
    by_name = {one["Names"]: one for one in found["Images"]}
    assert by_name["base:1"]["Workspaces"] == 1
    assert by_name["base:1"]["SharedSize"] == by_name["base:2"]["SharedSize"] != "0B"
    assert [one["Images"] for one in found["Layers"]] == [2]
    assert [one["Name"] for one in found["Workspaces"]] == ["w"]


def test_sizes_of_workspaces(base: Cli) -> None:
    base.run("create", "--name", "w", "base:1")
    (base.root / "workspaces/w/upper/new").write_bytes(b"n" * 100_000)
    assert "SIZE" not in base.run("ps")
    assert base.run("ps", "-s").splitlines()[0].split()[-2:] == ["SIZE", "MOUNT"]
    (described,) = json.loads(base.run("inspect", "-s", "w"))
    assert 100_000 < described["SizeRw"] < described["SizeRootFs"]
