"""The mount-string parser, row by row of its table, and the configuration file."""

import os
from pathlib import Path

import pytest

from overlayfs_py.errors import ConfigError
from overlayfs_py.options import IdRange, Options, escape, parse_options, split_options
from overlayfs_py.options.config import read_config
from overlayfs_py.options.manual import render
from overlayfs_py.options.table import GROUPS, ROWS, Kind, Row

LOWER = "lowerdir=/low"


def parse(text: str, *, cwd: bytes = b"/", source: str | None = None) -> Options:
    return parse_options(split_options(text), mountpoint=b"/mnt", cwd=cwd, source=source)


def field(options: Options, target: str) -> object:
    record, name = target.split(".")
    return getattr(getattr(options, record), name)


@pytest.fixture(autouse=True)
def no_links_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """/a, /d, /mnt may be links on the machine: they are resolved below the tests' own directories alone."""
    own, resolved = os.fsencode(tmp_path_factory.getbasetemp()), os.path.realpath

    def realpath(path: bytes, **more: bool) -> bytes:
        return resolved(path, **more) if os.fsencode(path).startswith(own) else os.path.normpath(path)

    monkeypatch.setattr(os.path, "realpath", realpath)


def test_names_are_unique() -> None:
    """Every option has one row."""
    assert len(ROWS) == sum(len(rows) for rows in GROUPS.values())


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.FLAG and "." in r.target])
def test_flag(row: Row) -> None:
    """A flag sets its field and takes no value."""
    text = f"{LOWER},upperdir=/u,workdir=/w,{row.name}"
    assert field(parse(text), row.target) == row.values[""]
    with pytest.raises(ConfigError, match=row.name):
        parse(text + "=1")


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.ONE_OF])
def test_words(row: Row) -> None:
    """Each listed word sets its value; any other is an error that names option and word."""
    for word, value in row.values.items():
        options = parse(f"{LOWER},{row.name}={word}")
        assert not row.target or field(options, row.target) == value
    for wrong in ("maybe", "", "ON"):
        with pytest.raises(ConfigError, match=row.name):
            parse(f"{LOWER},{row.name}={wrong}")


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.INTEGER])
def test_integers(row: Row) -> None:
    assert field(parse(f"{LOWER},{row.name}=7"), row.target) == 7
    for wrong in ("-1", "x", "1.5", str(2**32)):
        with pytest.raises(ConfigError, match=row.name):
            parse(f"{LOWER},{row.name}={wrong}")


def test_remount_is_not_of_a_first_mount() -> None:
    with pytest.raises(ConfigError, match="remount applies to an existing mount"):
        parse(f"{LOWER},remount")


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.WARNED])
def test_without_effect_is_said(row: Row) -> None:
    """An option that does nothing is taken, with or without a value, and one line says so."""
    for text in (row.name, f"{row.name}=1"):
        (warning,) = parse(f"{LOWER},{text}").warnings
        assert row.name in warning
        assert "\n" not in warning


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.SILENT])
def test_mount_words_are_passed_over(row: Row) -> None:
    assert parse(f"{LOWER},{row.name}").warnings == ()


@pytest.mark.parametrize("row", [r for r in ROWS.values() if r.kind is Kind.REFUSED])
def test_refused(row: Row) -> None:
    """What is not available is an error that names it and says why."""
    with pytest.raises(ConfigError, match=rf"{row.name} .*{row.meaning}"):
        parse(f"{LOWER},{row.name}=x")


@pytest.mark.parametrize("name", ["volatil", "metacopi=on", "lower", "-x", "Lowerdir=/a"])
def test_unknown_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown option {name.split('=')[0]}"):
        parse(f"{LOWER},{name}")


def test_systemd_and_fstab_words() -> None:
    options = parse(f"rw,{LOWER},noatime,dev,suid,x-systemd.requires=/a,X-mount.mkdir,comment=x,_netdev")
    assert options.mount.noatime
    assert not options.mount.nodev


@pytest.mark.parametrize(
    "text",
    [
        "lowerdir=/a:/b,upperdir=/u,workdir=/w,,volatile",
        "lowerdir=/a:/b,upperdir=/u,workdir=/w,volatile,",
        ",lowerdir=/a:/b,upperdir=/u,,workdir=/w,fsync=0,volatile",
    ],
)
def test_empty_options_are_passed_over(text: str) -> None:
    """containers/storage pastes strings together (empty options, trailing commas)."""
    options = parse(text)
    assert options.union.lower == (b"/a", b"/b")
    assert options.union.volatile
    assert not options.mount.read_only


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        (r"lowerdir=/a\:b:/c", (b"/a:b", b"/c")),
        (r"lowerdir=/a\,b:/c", (b"/a,b", b"/c")),
        (r"lowerdir=/a\\:/c", (b"/a\\", b"/c")),
        (r"lowerdir=/a\\\:b", (b"/a\\:b",)),
        (r"lowerdir=/a\b", (b"/a\\b",)),
        ("lowerdir=/a=b", (b"/a=b",)),
        ("lowerdir+=/a,lowerdir+=/b:c", (b"/a", b"/b:c")),
        ("lowerdir=/a:/b,lowerdir+=/c", (b"/a", b"/b", b"/c")),
        ("lowerdir=/a,lowerdir=/b", (b"/b",)),
        ("lowerdir=/a//b/../c/", (b"/a/c",)),
        ("lowerdir=/\udcff", (b"/\xff",)),
    ],
)
def test_lower_directories(text: str, lower: tuple[bytes, ...]) -> None:
    assert parse(text).union.lower == lower


@pytest.mark.parametrize(
    "path", ["/plain", "/with:colon", "/with,comma", "/with\\back", "/\\:,:", "/end\\", "/a\nb"]
)
def test_escape_round_trip(path: str) -> None:
    """An escaped path comes back as it was, wherever it stands."""
    text = f"lowerdir={escape(path)}:{escape(path)},upperdir={escape(path)}/u,workdir=/w"
    options = parse(text)
    assert options.union.lower == (os.fsencode(path),) * 2
    assert options.union.upper == os.fsencode(path + "/u")


def test_data_only_lowers() -> None:
    union = parse("lowerdir=/a:/b::/d1::/d2").union
    assert union.lower == (b"/a", b"/b")
    assert union.data_lower == (b"/d1", b"/d2")
    assert parse("lowerdir+=/a,datadir+=/d").union.data_lower == (b"/d",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "upperdir=/u,workdir=/w",
        "lowerdir=",
        "lowerdir",
        "lowerdir=/a:",
        "lowerdir=:/a",
        "lowerdir=/a:::/b",
        "lowerdir=::/d",
        "lowerdir=/a::/d1:/d2",
        "datadir+=/d",
        "lowerdir=/a,upperdir=/u",
        "lowerdir=/a::/d,lowerdir+=/b",
    ],
)
def test_unusable_layers(text: str) -> None:
    with pytest.raises(ConfigError, match=r"lower|upperdir"):
        parse(text)


def test_relative_paths_and_links(tmp_path: Path) -> None:
    """Paths start at the caller's directory; a lower that is a link is resolved once."""
    (tmp_path / "diff").mkdir()
    (tmp_path / "l").mkdir()
    (tmp_path / "l/LINK").symlink_to("../diff")
    cwd = os.fsencode(tmp_path)
    options = parse_options(
        split_options("lowerdir=l/LINK,upperdir=u,workdir=w"), mountpoint=b"merged/", cwd=cwd
    )
    assert options.union.lower == (cwd + b"/diff",)
    assert options.union.upper == cwd + b"/u"
    assert options.mount.mountpoint == cwd + b"/merged"


def test_without_upper_read_only() -> None:
    options = parse(f"{LOWER},rw,workdir=/w")
    assert options.mount.read_only
    assert options.union.upper is None
    assert options.union.work is None
    assert "workdir" in options.warnings[0]


@pytest.mark.parametrize("text", [":0:1:1002:1002:0:1:1003:1003:64534", "0:1:1002:1002:0:1:1003:1003:64534"])
def test_id_maps(text: str) -> None:
    """Triples LAYER:MOUNT:SIZE, with the leading colon of containers' tools."""
    expected = (
        IdRange(in_layer=0, in_mount=1, size=1002),
        IdRange(in_layer=1002, in_mount=0, size=1),
        IdRange(in_layer=1003, in_mount=1003, size=64534),
    )
    assert parse(f"{LOWER},uidmapping={text}").union.uid_map == expected
    assert parse(f"{LOWER},gidmapping={text}").union.gid_map == expected


@pytest.mark.parametrize("text", ["0:1", "0:1:0", "0:1:x", "0:1:2:1:9:1", "0:1:2:5:2:1", ":", "0:0:-1"])
def test_wrong_id_maps(text: str) -> None:
    with pytest.raises(ConfigError, match="uidmapping"):
        parse(f"{LOWER},uidmapping={text}")


def test_squash() -> None:
    """A single id beats squash_to_root, wherever it stands."""
    union = parse(f"{LOWER},squash_to_uid=5,squash_to_root").union
    assert (union.squash_uid, union.squash_gid) == (5, 0)
    assert parse(LOWER).union.squash_uid is None


def test_source_is_the_name_unless_one_is_given() -> None:
    assert parse(LOWER, source="layers").mount.fsname == "layers"
    assert parse(f"{LOWER},fsname=x", source="layers").mount.fsname == "x"


def test_timeout() -> None:
    assert parse(f"{LOWER},timeout=0").service.timeout == 0
    for wrong in ("x", "-1", "nan", "inf"):
        with pytest.raises(ConfigError, match="timeout"):
            parse(f"{LOWER},timeout={wrong}")


def test_thousand_lowers() -> None:
    """1,000 directories with 100-byte names are parsed as they stand."""
    names = [f"/{number:099d}" for number in range(1000)]
    assert len(parse("lowerdir=" + ":".join(names)).union.lower) == 1000


def config(tmp_path: Path, text: str) -> Options:
    path = tmp_path / "c.toml"
    path.write_text(text)
    mountpoint, pairs = read_config(path)
    return parse_options(pairs, mountpoint=mountpoint)


def test_config_file(tmp_path: Path) -> None:
    """The keys are the options; paths need no escapes."""
    options = config(
        tmp_path,
        'mountpoint="/m"\nlowerdir=["/a,b:c", "/d"]\nupperdir="/u,1"\nworkdir="/w"\n'
        'metacopy=true\nvolatile=true\nstatic_nlink=false\ntimeout=3\nredirect_dir="on"\n',
    )
    assert options.mount.mountpoint == b"/m"
    assert options.union.lower == (b"/a,b:c", b"/d")
    assert options.union.upper == b"/u,1"
    assert options.union.metacopy
    assert options.union.volatile
    assert not options.union.static_nlink
    assert options.service.timeout == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('lowerdir="/a"', "mountpoint"),
        ('mountpoint="m"', "mountpoint"),
        ('mountpoint="/m"\nlowerdirs="/a"', "unknown option lowerdirs"),
        ('mountpoint="/m"\nlowerdir=[1]', "lowerdir"),
        ('mountpoint="/m"\nlowerdir=', "Invalid value"),
    ],
)
def test_wrong_config_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"c\.toml: .*{says}"):
        config(tmp_path, text)


def test_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.toml")


def test_manual_is_the_table() -> None:
    """docs/options.md says what the parser does (python -m overlayfs_py.options.manual > docs/options.md)."""
    page = Path(__file__).resolve().parents[1] / "docs/options.md"
    assert page.read_text(encoding="utf-8") == render()
