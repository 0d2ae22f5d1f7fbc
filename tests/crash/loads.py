"""Programs that write while the daemon is killed, and what each may find afterwards."""

import mmap
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PAGE = 4096
RECORD = 64
COUNT = 12


class Load(NamedTuple):
    """`prepare` fills the lower; `run` writes till the mount dies; `faults` is what is wrong then."""

    prepare: Callable[[Path], None]
    run: Callable[[Path], None]
    faults: Callable[[Path], list[str]]


def _old(number: int) -> bytes:
    """Content of a lower file: some small, some that take a while to copy up."""
    size = (100, 70_000, 3_000_000)[number % 3]
    return (b"old %04d\n" % number) * (size // 9)


def _new(number: int) -> bytes:
    return (b"new %04d\n" % number) * (len(_old(number)) // 9)


def _names() -> list[tuple[int, str]]:
    return [(number, f"f{number:02}") for number in range(COUNT)]


def _prepare(lower: Path) -> None:
    for number, name in _names():
        path = lower / name
        path.write_bytes(_old(number))
        path.chmod(0o640)
        os.setxattr(path, "user.kept", name.encode())


def _each(top: Path, fault: Callable[[int, bytes], str]) -> list[str]:
    """Faults of each file: its content by `fault`, its metadata here."""
    found = []
    for number, name in _names():
        path = top / name
        try:
            trouble = fault(number, path.read_bytes())
            kept = os.getxattr(path, "user.kept") == name.encode() and path.stat().st_mode & 0o777 == 0o640
        except OSError as error:
            trouble, kept = str(error), True
        if trouble or not kept:
            found.append(f"{name}: {trouble or 'mode or xattr lost'}")
    return found


def _append(top: Path) -> None:
    for turn in range(1000):
        for number, name in _names():
            with open(top / name, "ab", buffering=0) as stream:
                stream.write((b"%02d %04d " % (number, turn)).ljust(RECORD, b"."))


def _append_fault(number: int, data: bytes) -> str:
    old = _old(number)
    if not data.startswith(old):
        return f"not the old content and then more: {len(data)} bytes of {len(old)}"
    rest = data[len(old) :]
    if len(data) % PAGE == 0:  # what goes beyond a page is a request of its own (fuse_fill_write_pages)
        rest = rest[: len(rest) // RECORD * RECORD]
    expected = b"".join(
        (b"%02d %04d " % (number, turn)).ljust(RECORD, b".") for turn in range(len(rest) // RECORD)
    )
    return "" if rest == expected else f"records torn or lost: {len(data)} bytes"


def _truncate(top: Path) -> None:
    for number, name in _names():
        os.truncate(top / name, len(_old(number)) // 2)
    for _, name in _names() * 100:
        os.truncate(top / name, 10)


def _truncate_fault(number: int, data: bytes) -> str:
    old = _old(number)
    return (
        ""
        if data in (old, old[: len(old) // 2], old[:10])
        else f"{len(data)} bytes, not a cut of the old content"
    )


def _rename_over(top: Path) -> None:
    for turn in range(100):
        for number, name in _names():
            temporary = top / f".{name}.tmp"
            temporary.write_bytes(_new(number) if turn % 2 == 0 else _old(number))
            os.setxattr(temporary, "user.kept", name.encode())
            temporary.chmod(0o640)
            temporary.rename(top / name)


def _whole_fault(number: int, data: bytes) -> str:
    return "" if data in (_old(number), _new(number)) else f"neither old nor new: {len(data)} bytes"


def _map(top: Path) -> None:
    for number, name in _names() * 100:
        with open(top / name, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as area:
            area[:] = _new(number)
            area.flush()


def _map_fault(number: int, data: bytes) -> str:
    old, new = _old(number), _new(number)
    pages = range(0, len(old), PAGE)
    whole = all(data[at : at + PAGE] in (old[at : at + PAGE], new[at : at + PAGE]) for at in pages)
    return "" if len(data) == len(old) and whole else "pages torn or zero"


ACCOUNTS, MONEY = 200, 1000


def _prepare_sqlite(lower: Path) -> None:
    with sqlite3.connect(lower / "bank.db") as bank:
        bank.execute("create table account (id integer primary key, money integer, note text)")
        rows = [(number, MONEY, "x" * 500) for number in range(ACCOUNTS)]
        bank.executemany("insert into account values (?, ?, ?)", rows)
    bank.close()


def _sqlite(top: Path) -> None:
    """Moves money about, one transaction each; every other one rewrites many pages."""
    bank = sqlite3.connect(top / "bank.db", timeout=5)
    for turn in range(100_000):
        with bank:
            bank.execute("update account set money = money - 7 where id = ?", (turn % ACCOUNTS,))
            bank.execute("update account set money = money + 7 where id = ?", ((turn * 31 + 1) % ACCOUNTS,))
            if turn % 2:
                bank.execute("update account set note = ?", (f"turn {turn} " * 40,))


def _sqlite_faults(top: Path) -> list[str]:
    bank = sqlite3.connect(top / "bank.db", timeout=5)
    try:
        health = bank.execute("pragma integrity_check").fetchone()[0]
        money = bank.execute("select sum(money) from account").fetchone()[0]
        notes = bank.execute("select count(distinct note) from account").fetchone()[0]
    except sqlite3.Error as error:
        return [f"bank.db: {error}"]
    finally:
        bank.close()
    faults = [] if health == "ok" else [f"integrity: {health}"]
    faults += [] if money == ACCOUNTS * MONEY else [f"money: {money}"]
    return faults + ([] if notes == 1 else ["half a transaction"])


LOADS = {
    "append": Load(_prepare, _append, lambda top: _each(top, _append_fault)),
    "truncate": Load(_prepare, _truncate, lambda top: _each(top, _truncate_fault)),
    "rename-over": Load(_prepare, _rename_over, lambda top: _each(top, _whole_fault)),
    "mmap": Load(_prepare, _map, lambda top: _each(top, _map_fault)),
    "sqlite": Load(_prepare_sqlite, _sqlite, _sqlite_faults),
}
