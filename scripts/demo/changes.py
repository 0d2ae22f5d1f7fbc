"""What is done inside the mounted workspace: one row each, through chroot where a user would."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[..., str]
Action = Callable[[Run, Path], None]

PACKAGE = "hello"


class Failed(Exception):
    """A step failed; str() is the sentence to print."""


@dataclass(frozen=True)
class Change:
    """`otherwise` is taken when `run` fails, for machines without a network."""

    title: str
    run: Action
    otherwise: Action | None = None


def in_root(run: Run, merged: Path, script: str) -> str:
    """Run a shell script in the workspace, as its root."""
    return run("chroot", merged, "/bin/sh", "-euc", script)


def install_with_apt(run: Run, merged: Path) -> None:
    """A package from the mirror that the root was made from; its lists are not kept."""
    shutil.copyfile("/etc/resolv.conf", merged / "etc/resolv.conf")
    in_root(run, merged, "apt-get -q update")
    in_root(run, merged, f"apt-get install -q -y --no-install-recommends {PACKAGE}")
    in_root(run, merged, "apt-get clean && rm -rf /var/lib/apt/lists/*")
    in_root(run, merged, f"dpkg --verify {PACKAGE} && {PACKAGE}")


def local_package(scratch: Path) -> Path:
    """A package of three files and the directory it is built in."""
    tree = scratch / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share/hello-demo").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: hello-demo\nVersion: 1\nArchitecture: all\nMaintainer: Demo <demo@example.org>\n"
        "Description: a package made by the demo\n"
    )
    for name in ("one", "two"):
        (tree / "usr/share/hello-demo" / name).write_text(name)
    (tree / "usr/share/hello-demo/three").hardlink_to(tree / "usr/share/hello-demo/one")
    return tree


def install_local(scratch: Path, command: str) -> Action:
    def action(run: Run, merged: Path) -> None:
        package = merged / "tmp/hello-demo.deb"
        run("dpkg-deb", "--root-owner-group", "-b", local_package(scratch), package)
        in_root(run, merged, f"{command} && rm /tmp/hello-demo.deb && ls /usr/share/hello-demo")

    return action


def delete_tree(path: str) -> Action:
    def action(run: Run, merged: Path) -> None:
        in_root(run, merged, f"rm -rf {path}; test ! -e {path}")

    return action


def make_again(path: str) -> Action:
    """Delete a directory and make another of the same name: an opaque directory in the upper."""

    def action(run: Run, merged: Path) -> None:
        in_root(run, merged, f"rm -rf {path}; mkdir {path}; echo new > {path}/new; ls -A {path}")

    return action


def move_directory(source: str, target: str) -> Action:
    def action(run: Run, merged: Path) -> None:
        before = sorted(os.listdir(merged / source.lstrip("/")))
        in_root(run, merged, f"mv {source} {target}")
        if sorted(os.listdir(merged / target.lstrip("/"))) != before:
            raise Failed(f"{target} does not list what {source} did")

    return action


def append_to_largest(directory: str) -> Action:
    """Append to the largest file of a lower directory: a whole copy-up, and the old bytes stay."""

    def action(run: Run, merged: Path) -> None:
        top = merged / directory.lstrip("/")
        files = [p for p in top.rglob("*") if p.is_file() and not p.is_symlink()]
        largest = max(files, key=lambda path: (path.stat().st_size, str(path)))
        size = largest.stat().st_size
        name = "/" + str(largest.relative_to(merged))
        in_root(run, merged, f"echo appended >> {name}")
        if largest.stat().st_size != size + len("appended\n"):
            raise Failed(f"{name} has {largest.stat().st_size} bytes, not {size + 9}")

    return action


def hard_links(lower_file: str) -> Action:
    def action(run: Run, merged: Path) -> None:
        script = (
            f"ln {lower_file} {lower_file}.link; test {lower_file} -ef {lower_file}.link; "
            "mkdir /opt/links; cd /opt/links; echo one > a; ln a b; ln b c"
        )
        in_root(run, merged, script)
        if (merged / "opt/links/a").stat().st_nlink != 3:
            raise Failed("/opt/links/a does not have three names")

    return action


def capabilities(program: str) -> Action:
    """A file capability on a copy of a program and on the lower program itself."""

    def action(run: Run, merged: Path) -> None:
        in_root(run, merged, f"mkdir -p /usr/local/bin; cp {program} /usr/local/bin/capable")
        for path in ("usr/local/bin/capable", program.lstrip("/")):
            run("setcap", "cap_net_raw+ep", merged / path)
        run("getcap", merged / "usr/local/bin/capable")

    return action


def metadata(lower_file: str) -> Action:
    def action(run: Run, merged: Path) -> None:
        in_root(
            run,
            merged,
            f"chmod 600 {lower_file}; chown 1000:1000 {lower_file}; "
            f"touch -d @981173106 {lower_file}; "
            "cd /opt; umask 027; mkfifo fifo; mkdir setgid; chmod 2770 setgid; ln -s /opt/links symlink",
        )

    return action


def changes_for(kind: str, scratch: Path) -> list[Change]:
    """The changes that suit a root file system of that kind."""
    if kind == "busybox":
        install = Change(
            "install a package made here", install_local(scratch, "dpkg-deb -x /tmp/hello-demo.deb /")
        )
        docs, moved, large = "/usr/share/doc", "/usr/share/locale", "/var/log"
        again, linked, program, changed = (
            "/usr/share/locale/fr",
            "/etc/passwd",
            "/bin/busybox",
            "/etc/os-release",
        )
    else:
        local = install_local(scratch, "dpkg -i /tmp/hello-demo.deb")
        install = Change("install a package with apt, in the workspace", install_with_apt, local)
        docs, moved, large = "/usr/share/doc", "/usr/share/zoneinfo", "/usr/lib"
        again, linked, program, changed = "/usr/share/man", "/etc/passwd", "/bin/cat", "/etc/debian_version"
    return [
        install,
        Change(f"delete a tree ({docs})", delete_tree(docs)),
        Change(f"delete a directory and make it again ({again})", make_again(again)),
        Change(f"move a directory ({moved} to /opt)", move_directory(moved, "/opt/moved")),
        Change(f"append to the largest file below {large}", append_to_largest(large)),
        Change("hard links, one of them to a file of the image", hard_links(linked)),
        Change("owner, mode, time, fifo, symlink", metadata(changed)),
        Change("file capabilities", capabilities(program)),
    ]
