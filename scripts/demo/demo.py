"""The main job on a real root file system: import, create, mount, work, diff, commit, mount, compare.

Every step prints what it ran and how long it took; the first thing that is not as it should be ends
the demo with exit status 1. Nothing is left behind (DEMO_KEEP=1 keeps the directory).
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from changes import Change, Failed, changes_for
from compare import Entry, differences, snapshot

from overlayfs_py.service.subprocesses import running

ROOT = Path(__file__).resolve().parents[2]
LAYERSTORE = str(ROOT / ".venv/bin/layerstore")
BASE, RESULT, NAME = "demo/rootfs:base", "demo/rootfs:worked", "demo-work"
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{STANDARD_PATH}:{os.environ.get('PATH', '')}",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C",
}
COMMAND = '["/bin/sh", "-c", "echo hello from the committed image"]'


class Demo:
    """The steps share a scratch directory, a store in it and the clock."""

    def __init__(self, scratch: Path, kind: str) -> None:
        self.scratch = scratch
        self.kind = kind
        self.store = scratch / "store"
        self.number = 0
        self.results: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Number, name and time what happens inside."""
        self.number += 1
        print(f"\n{self.number:2}. {title}", flush=True)
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self.results.append((title, seconds))
        print(f"    {seconds:.2f} s", flush=True)

    def run(self, *words: str | Path, show: bool = True) -> str:
        """Run a command, echoing it; its output is returned. A failure ends the demo with its message."""
        command = [str(word) for word in words]
        if show:
            print("    $ " + " ".join(self.shown(word) for word in command), flush=True)
        # Interrupted, it must have ended before its store is removed.
        with running(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env=ENVIRONMENT,
        ) as process:
            output, complaints = process.communicate(timeout=900)
        if process.returncode:
            raise Failed(
                f"{self.shown(command[0])} exited {process.returncode}: {(complaints or output).strip()}"
            )
        return str(output).strip()

    def layerstore(self, *words: str | Path) -> str:
        return self.run(LAYERSTORE, "--root", self.store, *words)

    def shown(self, word: str) -> str:
        """A word of a command line as one would type it, with the scratch directory as $D."""
        word = word.replace(LAYERSTORE, "layerstore").replace(str(self.scratch), "$D")
        return f"'{word}'" if any(mark in word for mark in ' "[;&|>*') else word

    def note(self, text: str) -> None:
        print(f"    {text}", flush=True)


def expect(condition: bool, sentence: str) -> None:
    if not condition:
        raise Failed(sentence)


def import_image(demo: Demo) -> None:
    with demo.step(f"a root file system ({demo.kind})"):
        tar = Path(demo.run(ROOT / "scripts/rootfs", demo.kind, show=False).splitlines()[-1])
        demo.note(f"{tar.relative_to(ROOT)}: {tar.stat().st_size / 1e6:.0f} MB")
    with demo.step("import it as an image"):
        image = demo.layerstore("import", "-m", f"a {demo.kind} root", tar, BASE)
        expect(image.startswith("sha256:"), f"import printed {image!r}, not an image ID")
        demo.note(image)


def mount_workspace(demo: Demo, cleanup: ExitStack) -> Path:
    with demo.step("create a workspace over the image and mount it"):
        expect(demo.layerstore("create", "--name", NAME, BASE) == NAME, "create did not print the name")
        cleanup.callback(unmount_quietly, demo, NAME)
        merged = Path(demo.layerstore("mount", NAME))
        expect(os.path.ismount(merged), f"{merged} is not a mount point")
        demo.note(f"{merged}: {sum(len(d) + len(f) for _, d, f in os.walk(merged)):,} entries")
        return merged


def work(demo: Demo, merged: Path) -> None:
    for change in changes_for(demo.kind, demo.scratch):
        with demo.step(change.title):
            apply_change(demo, change, merged)


def apply_change(demo: Demo, change: Change, merged: Path) -> None:
    """Run a change; one that has another way takes it when the first fails."""
    try:
        change.run(demo.run, merged)
    except Failed as error:
        if change.otherwise is None:
            raise
        demo.note(f"that failed ({str(error).splitlines()[-1][:100]}); without the network instead:")
        change.otherwise(demo.run, merged)


def show_diff(demo: Demo) -> None:
    with demo.step("what changed"):
        lines = demo.layerstore("diff", NAME).splitlines()
        counts = {letter: sum(line.startswith(letter + " ") for line in lines) for letter in "ACD"}
        expect(all(counts.values()), f"diff shows no line of some kind: {counts}")
        for line in lines[:6]:
            demo.note(line)
        demo.note(f"... {counts['A']} added, {counts['C']} changed, {counts['D']} deleted")


def commit(demo: Demo) -> str:
    with demo.step("commit the upper directory as a new layer"):
        author = "Demo <demo@example.org>"
        words = ("-a", author, "-m", "worked in it", "-c", f"CMD {COMMAND}", "-p", NAME, RESULT)
        image = demo.layerstore("commit", *words)
        expect(image.startswith("sha256:"), f"commit printed {image!r}, not an image ID")
        demo.note(image)
        return image


def compare_mounts(demo: Demo, merged: Path, cleanup: ExitStack) -> dict[bytes, Entry]:
    with demo.step("mount the new image read-only and compare it with the live workspace"):
        again = demo.scratch / "again"
        again.mkdir()
        cleanup.callback(unmount_quietly, demo, again)
        demo.layerstore("mount", "--read-only", RESULT, again)
        live, committed = snapshot(merged), snapshot(again)
        report_differences(demo, differences(live, committed))
        linked = sum(len(entry.names) > 1 for entry in live.values())
        demo.note(
            f"{len(live):,} entries equal: kind, mode, owner, mtime (ns), size, device, target, content, "
            f"xattrs, hard-link groups ({linked} linked names)"
        )
    return live


def report_differences(demo: Demo, lines: list[str]) -> None:
    for line in lines[:20]:
        demo.note(line)
    expect(not lines, f"{len(lines)} differences")


def ask_skopeo(demo: Demo, image: str) -> None:
    with demo.step("skopeo reads the store in place"):
        source = f"oci:{demo.store}/oci:{RESULT}"
        manifest = json.loads(demo.run("skopeo", "inspect", "--raw", source))
        config = json.loads(demo.run("skopeo", "inspect", "--config", source))
        summary = json.loads(demo.run("skopeo", "inspect", source))
        expect(manifest["config"]["digest"] == image, "skopeo sees another image ID than commit printed")
        expect(len(summary["Layers"]) == 2, f"skopeo sees {len(summary['Layers'])} layers, not 2")
        expect(config["config"]["Cmd"] == json.loads(COMMAND), "the CMD instruction is not in the config")
        expect("demo@example.org" in config["author"], "the author is not in the config")
        expect(config["history"][-1]["comment"] == "worked in it", "the message is not in the history")
        demo.note(f"{summary['Digest']}, {len(summary['Layers'])} layers, Cmd {config['config']['Cmd']}")


def ask_umoci(demo: Demo, live: dict[bytes, Entry]) -> None:
    with demo.step("umoci unpacks it to the same tree"):
        # umoci wants a plain tag, so it gets a layout of its own with this one image.
        layout, bundle = demo.scratch / "layout", demo.scratch / "bundle"
        demo.run("skopeo", "copy", "--quiet", f"oci:{demo.store}/oci:{RESULT}", f"oci:{layout}:worked")
        demo.run("umoci", "unpack", "--image", f"{layout}:worked", bundle)
        report_differences(demo, differences(live, snapshot(bundle / "rootfs")))
        demo.note(f"{len(live):,} entries equal in the same fields")


def unmount_quietly(demo: Demo, what: str | Path) -> None:
    """Clean up through layerstore, or if that fails by umount(8)."""
    done = subprocess.run([LAYERSTORE, "--root", str(demo.store), "umount", str(what)], capture_output=True)
    if done.returncode:
        for path in (demo.store / "workspaces" / NAME / "merged", demo.scratch / "again"):
            if os.path.ismount(path) or is_dead_mount(path):
                subprocess.run(["umount", "-l", str(path)], capture_output=True)


def is_dead_mount(path: Path) -> bool:
    """ENOTCONN: the daemon died under it."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def remove(scratch: Path) -> None:
    """Remove the scratch directory, unless something is still mounted in it."""
    inside = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(scratch) in line
    ]
    if inside:
        print(f"demo: still mounted: {' '.join(inside)}; left in place", file=sys.stderr)
    elif os.environ.get("DEMO_KEEP"):
        print(f"demo: kept {scratch}")
    else:
        shutil.rmtree(scratch)


def tell(demo: Demo) -> None:
    width = max(len(title) for title, _ in demo.results)
    print("\nWhat was done, and how long it took:")
    for number, (title, seconds) in enumerate(demo.results, 1):
        print(f"  {number:2}. {title:{width}} {seconds:8.2f} s")
    print(f"      {'all':{width}} {sum(seconds for _, seconds in demo.results):8.2f} s")


def main() -> int:
    argparse.ArgumentParser(prog="scripts/demo/run", description=__doc__).parse_args()
    if os.geteuid() != 0:
        print("demo: run it as root: debootstrap, chroot and mount need it", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="overlayfs-py-demo-", dir=os.environ.get("DEMO_DIR", "/var/tmp")))
    demo = Demo(scratch, os.environ.get("DEMO_ROOTFS", "debian"))
    print(f"D={scratch}")
    try:
        with ExitStack() as cleanup:
            cleanup.callback(remove, scratch)
            import_image(demo)
            merged = mount_workspace(demo, cleanup)
            work(demo, merged)
            show_diff(demo)
            image = commit(demo)
            live = compare_mounts(demo, merged, cleanup)
            ask_skopeo(demo, image)
            ask_umoci(demo, live)
            with demo.step("unmount"):
                demo.layerstore("umount", scratch / "again")
                demo.layerstore("umount", NAME)
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"demo: step {demo.number} failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; everything is unmounted and removed", file=sys.stderr)
        return 130
    tell(demo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
