"""Figures: they are what was done, and Prometheus reads them. Nothing sent to the socket does any harm."""

import json
import os
import random
import socket
from typing import Any

import pytest

from overlayfs_py.service import client, rundir
from overlayfs_py.service.exposition import prometheus, readable
from tests.conftest import Mounter
from tests.mounts import Layers, OverlayMount
from tests.service.starts import one_line, pyctl

RUN_DIR = b"/run/overlayfs-py"


def figures(mount: OverlayMount) -> dict[str, Any]:
    with client.connect(RUN_DIR, mount.root) as daemon:
        return dict(daemon.ask("stats"))


@pytest.mark.fuse
@pytest.mark.root
def test_figures_are_what_was_done(layers: Layers, mount: Mounter) -> None:
    for number in range(7):
        (layers.lowers[0] / f"f{number}").write_bytes(bytes(1000))
    (layers.lowers[0] / "full").mkdir()
    (layers.lowers[0] / "full/x").touch()
    mounted = mount(layers)
    before = figures(mounted)
    for number in range(5):
        with (layers.merged / f"f{number}").open("r+b") as file:
            file.write(b"x")
    for number in range(3):
        (layers.merged / f"d{number}").mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="not empty"):
            (layers.merged / "full").rmdir()
    after = figures(mounted)
    done = {
        name: count - before["operations"].get(name, 0)
        for name, count in after["operations"].items()
        if count != before["operations"].get(name, 0)
    }
    assert (done["mkdir"], done["write"], done["rmdir"]) == (3, 5, 2)
    assert after["errors"]["rmdir"] == {"ENOTEMPTY": 2}
    assert after["requests"] - before["requests"] == sum(done.values())
    assert after["copied_up"] - before["copied_up"] == 5
    assert after["copied_bytes"] - before["copied_bytes"] == 5000
    assert after["resident_bytes"] > 1 << 20
    assert (after["engine"], after["data"]) == (mounted.engine, "cached")
    shown = pyctl("stats", layers.merged).stdout
    assert "copied_up: 5" in shown
    assert "ENOTEMPTY 2" in shown
    assert json.loads(pyctl("stats", "--json", layers.merged).stdout)["mountpoint"] == str(layers.merged)
    assert str(layers.merged) in {
        found["mountpoint"] for found in json.loads(pyctl("stats", "--json").stdout)
    }


@pytest.mark.fuse
@pytest.mark.root
def test_prometheus_of_a_live_mount(layers: Layers, mounted: OverlayMount) -> None:
    families = parse(pyctl("stats", "--prometheus", layers.merged).stdout)
    (info,) = families["overlayfs_py_info"].samples
    assert info.labels["mountpoint"] == str(layers.merged)
    assert sum(sample.value for sample in families["overlayfs_py_requests"].samples) > 1
    one_line(pyctl("stats", "/not/mounted"), "/not/mounted", program="overlayfs-pyctl")


def parse(text: str) -> dict[str, Any]:
    parser = pytest.importorskip("prometheus_client.parser")
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def some_figures(mountpoint: str) -> dict[str, Any]:
    numbers = "started held nodes open_files open_directories copies_running copied_up copied_bytes requests"
    return {
        "mountpoint": mountpoint,
        **dict.fromkeys((*numbers.split(), "cpu_seconds", "resident_bytes", "open_fds"), 3),
        "version": "1",
        "engine": "native",
        "data": "cached",
        "frozen": True,
        "operations": {"lookup": 7, "unlink": 2},
        "errors": {"unlink": {"ENOENT": 1}},
    }


def test_exposition_is_well_formed() -> None:
    """Several mounts are one exposition: each family once; any name survives as a label."""
    strange = 'a "b"\\c\nd é'
    text = prometheus([some_figures(strange), some_figures("/b"), some_figures("x\udcff")])
    assert text.count("# TYPE overlayfs_py_nodes gauge") == 1
    families = parse(text)
    assert [s.labels["mountpoint"] for s in families["overlayfs_py_nodes"].samples] == [
        strange,
        "/b",
        "x\\xff",
    ]
    requests = {
        sample.labels["operation"]: sample.value
        for sample in families["overlayfs_py_requests"].samples
        if sample.labels["mountpoint"] == "/b"
    }
    assert requests == {"lookup": 7, "unlink": 2}
    assert families["overlayfs_py_requests"].type == "counter"
    assert families["overlayfs_py_frozen"].samples[0].value == 1
    assert all(family.documentation for family in families.values())


def test_nothing_mounted_is_an_empty_exposition() -> None:
    assert all(not family.samples for family in parse(prometheus([])).values())


def test_figures_for_people() -> None:
    lines = readable(some_figures("/mnt")).splitlines()
    assert lines[0] == "mountpoint: /mnt"
    assert lines[-1].split() == ["unlink", "2", "ENOENT", "1"]


def _strange_lines(dice: random.Random) -> list[bytes]:
    values = [None, True, -1, 0, 1e308, 10**30, "", "x", [], {}, ["a"], {"verb": "freeze"}, "\ud800"]
    verbs: list[object] = ["status", "stats", "thaw", "freeze", "", None, [], {}, "umount\0", "__class__"]
    lines = [
        b"[" * 60000,
        b'{"verb":' * 8000,
        b"9" * 10000,
        b"NaN",
        b'"\\ud800"',
        b"\0" * 100,
        b"{" + b" " * 60000,
    ]
    for _ in range(300):
        request = {"verb": dice.choice(verbs), "hold": dice.choice(values), "timeout": dice.choice(values)}
        lines.append(json.dumps(request).encode().replace(b"1e+308", b"Infinity"))
        raw = bytearray(lines[-1])
        raw[dice.randrange(len(raw))] = dice.randrange(256)
        lines.append(bytes(raw).replace(b"\n", b" "))
    return lines


@pytest.mark.fuse
@pytest.mark.root
def test_hostile_requests_are_answered(layers: Layers, mounted: OverlayMount) -> None:
    """One answer to each line, whatever it says, and the mount goes on; nothing stays frozen."""
    (path,) = rundir.sockets(RUN_DIR, mounted.root)
    lines = _strange_lines(random.Random(7))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(path)
        answers = asking.makefile("rb")
        for line in lines:
            asking.sendall(line + b"\n")
            assert json.loads(answers.readline()).keys() <= {"ok", "result", "error"}, line
    (layers.merged / "new").touch()
    assert figures(mounted)["frozen"] is False
    assert "Traceback" not in mounted.output()


@pytest.mark.fuse
@pytest.mark.root
def test_who_does_not_read_answers_is_left(mounted: OverlayMount) -> None:
    (path,) = rundir.sockets(RUN_DIR, mounted.root)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(path)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            asking.sendall(b'{"verb": "status"}\n' * 1_000_000)
    assert os.stat(mounted.root)
