"""The unit file, and the service under a real systemd in a container of its own."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging.machine import ROOT, Machine
from tests.waiting import wait_until

UNIT = ROOT / "overlayfs_py/service/overlayfs-py@.service"
EXAMPLE = ROOT / "overlayfs_py/service/example.toml"
EVERYTHING = ROOT / "tests/packaging/everything_asked.py"
in_a_machine = [pytest.mark.slow, pytest.mark.root, pytest.mark.fuse, pytest.mark.timeout(600)]


def configured(machine: Machine, name: str, more: str = "") -> str:
    """Layers at /srv/NAME and a configuration for them; returns the unit's name."""
    base = machine.layers(name)
    text = EXAMPLE.read_text().replace("/srv/NAME", base).replace(f', "{base}/base"', "")
    machine.configure(name, text.replace(f"{base}/patches", f"{base}/lower") + more)
    return f"overlayfs-py@{name}.service"


def _since_start(machine: Machine, unit: str) -> int:
    """Microseconds between a unit's start and its last sign of life."""
    last, start = (machine.show(unit, f"{what}TimestampMonotonic") for what in ("Watchdog", "ActiveEnter"))
    return int(last) - int(start)


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as installed, for this checkout's commands."""
    path = tmp_path / "overlayfs-py@.service"
    path.write_text(UNIT.read_text().replace("@BINDIR@", str(ROOT / ".venv/bin")))
    return path


def test_systemd_finds_no_fault_in_the_unit(instance: Path) -> None:
    """systemd-analyze verify says nothing at all."""
    words = ["systemd-analyze", "verify", "--man=no", str(instance)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    # Units of the machine itself may be at fault; ours may not.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "overlayfs-py" in line]
    assert done.returncode == 0
    assert ours == []


def test_the_unit_has_no_mount_namespace() -> None:
    """Each of these settings would hide the mount from the rest of the machine."""
    hiding = (
        "Private",
        "Protect",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "BindPaths",
        "Root",
        "DynamicUser",
    )
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in settings if line.startswith(hiding)]


class TestUnderSystemd:
    """Start, stop, failure, crash and a hang, as an administrator meets them."""

    pytestmark = in_a_machine

    def test_active_means_that_the_mount_answers(self, machine: Machine) -> None:
        """At the first moment the unit is active a file of the lower can be read."""
        unit = configured(machine, "ready")
        assert machine.systemctl("start", "--no-block", unit).returncode == 0
        deadline = time.monotonic() + 30
        while (state := machine.show(unit, "ActiveState")) != "active":
            assert state in ("inactive", "activating"), machine.journal(unit)
            assert time.monotonic() < deadline
        assert machine.check("cat", "/srv/ready/merged/hello") == "from the lower"
        assert machine.show(unit, "StatusText")
        assert machine.systemctl("stop", unit).returncode == 0

    def test_stop_unmounts_and_keeps_what_was_written(self, machine: Machine) -> None:
        """After `systemctl stop` nothing is mounted, no process is left and the upper has the new file."""
        unit = configured(machine, "stop")
        assert machine.systemctl("start", unit).returncode == 0, machine.journal(unit)
        machine.check("sh", "-c", "echo new > /srv/stop/merged/new; rm /srv/stop/merged/hello")
        process = machine.show(unit, "MainPID")
        assert machine.systemctl("stop", unit).returncode == 0
        assert not machine.is_mounted("/srv/stop/merged")
        assert machine.show(unit, "Result") == "success"
        assert machine.run("test", "-e", f"/proc/{process}").returncode != 0
        assert (machine.root / "srv/stop/upper/new").read_text() == "new\n"
        assert machine.systemctl("start", unit).returncode == 0
        assert machine.check("ls", "/srv/stop/merged") == "new"
        assert machine.systemctl("stop", unit).returncode == 0

    def test_the_hardening_forbids_nothing_a_user_may_ask(self, machine: Machine) -> None:
        """Owners, setuid, devices, capabilities, ACLs, trusted xattrs, another user: as without the unit."""
        unit = configured(machine, "asked", 'redirect_dir = "on"\nmetacopy = true\n')
        lower = machine.root / "srv/asked/lower"
        (lower / "lowerdir/below").mkdir(parents=True)
        (lower / "lowerfile").touch()
        (lower / "big").write_bytes(b"y" * (32 << 20))
        assert machine.systemctl("start", unit).returncode == 0, machine.journal(unit)
        machine.check("python3", "-c", EVERYTHING.read_text(), "/srv/asked/merged")
        assert machine.systemctl("stop", unit).returncode == 0
        assert machine.journal(unit)[1:] == []

    def test_a_wrong_configuration_fails_with_one_line(self, machine: Machine) -> None:
        """The unit fails at once, is not tried again, and its journal names the directory in one line."""
        unit = configured(machine, "wrong")
        (machine.root / "srv/wrong/lower/hello").unlink()
        (machine.root / "srv/wrong/lower").rmdir()
        assert machine.systemctl("start", unit).returncode != 0
        assert machine.show(unit, "ActiveState") == "failed"
        assert machine.show(unit, "NRestarts") == "0"
        lines = machine.journal(unit)
        assert len(lines) == 1, lines
        assert "/srv/wrong/lower" in lines[0]
        assert not machine.is_mounted("/srv/wrong/merged")

    def test_a_missing_configuration_fails_with_one_line(self, machine: Machine) -> None:
        """`systemctl start overlayfs-py@typo` says which file it looked for."""
        unit = "overlayfs-py@typo.service"
        assert machine.systemctl("start", unit).returncode != 0
        lines = machine.journal(unit)
        assert len(lines) == 1, lines
        assert "/etc/overlayfs-py/typo.toml" in lines[0]

    def test_a_killed_daemon_is_started_again(self, machine: Machine) -> None:
        """The stale mount is cleared and the same place answers again, with what was written before."""
        unit = configured(machine, "killed")
        assert machine.systemctl("start", unit).returncode == 0, machine.journal(unit)
        machine.check("sh", "-c", "echo before > /srv/killed/merged/before")
        machine.check("systemctl", "kill", "-s", "KILL", unit)
        machine.wait_for("the mount to answer again", "cat", "/srv/killed/merged/before")
        assert machine.show(unit, "NRestarts") == "1"
        mounts = machine.check("cat", "/proc/mounts").splitlines()
        assert sum(" /srv/killed/merged " in line for line in mounts) == 1
        assert machine.systemctl("stop", unit).returncode == 0
        assert not machine.is_mounted("/srv/killed/merged")

    def test_a_hung_daemon_is_noticed(self, machine: Machine) -> None:
        """A daemon that stops answering misses its watchdog and is replaced."""
        unit = configured(machine, "hung")
        extra = machine.root / "etc/systemd/system/overlayfs-py@hung.service.d"
        extra.mkdir(parents=True)
        (extra / "quick.conf").write_text("[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
        machine.check("systemctl", "daemon-reload")
        assert machine.systemctl("start", unit).returncode == 0, machine.journal(unit)
        # Two of its periods, and a sign of life after each.
        wait_until(lambda: _since_start(machine, unit) > 4e6, what="signs of life")
        assert machine.show(unit, "NRestarts") == "0", "a healthy daemon missed its watchdog"
        machine.check("systemctl", "kill", "-s", "STOP", unit)
        machine.wait_for(
            "another daemon",
            "sh",
            "-c",
            f"test $(systemctl show --value -p NRestarts {unit}) = 1",
            seconds=30,
        )
        machine.wait_for("the mount to answer again", "cat", "/srv/hung/merged/hello")
        assert machine.systemctl("stop", unit).returncode == 0

    def test_the_control_command_sees_it(self, machine: Machine) -> None:
        """`overlayfs-pyctl list` names the mount point while the service runs and not afterwards."""
        unit = configured(machine, "listed")
        assert machine.systemctl("start", unit).returncode == 0, machine.journal(unit)
        assert "/srv/listed/merged" in machine.check("overlayfs-pyctl", "list")
        assert machine.systemctl("stop", unit).returncode == 0
        assert "/srv/listed/merged" not in machine.check("overlayfs-pyctl", "list")


class TestMountEight:
    """mount(8), fstab and .mount units: `-t fuse.overlayfs-py`."""

    pytestmark = in_a_machine

    def options(self, base: str) -> str:
        return f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"

    def test_mount_and_umount(self, machine: Machine) -> None:
        """As typed: mount -t fuse.overlayfs-py none DIR -o ..."""
        base = machine.layers("typed")
        words = ("mount", "-t", "fuse.overlayfs-py", "none", f"{base}/merged", "-o", self.options(base))
        machine.check(*words)
        assert machine.check("cat", f"{base}/merged/hello") == "from the lower"
        assert machine.check("findmnt", "-no", "FSTYPE", f"{base}/merged") == "fuse.overlayfs-py"
        machine.check("umount", f"{base}/merged")
        assert not machine.is_mounted(f"{base}/merged")

    def test_mount_without_an_environment(self, machine: Machine) -> None:
        """mount(8) may give its helpers nothing, not even PATH."""
        base = machine.layers("bare")
        words = ("mount", "-t", "fuse.overlayfs-py", "none", f"{base}/merged", "-o", self.options(base))
        machine.check("/usr/bin/env", "-i", *("/usr/bin/" + words[0], *words[1:]))
        assert machine.check("cat", f"{base}/merged/hello") == "from the lower"
        machine.check("umount", f"{base}/merged")

    def test_a_failing_mount_says_why(self, machine: Machine) -> None:
        """mount(8) passes our line on and exits non-zero."""
        base = machine.layers("refused")
        options = self.options(base).replace("/lower", "/nowhere")
        done = machine.run("mount", "-t", "fuse.overlayfs-py", "none", f"{base}/merged", "-o", options)
        assert done.returncode != 0
        assert f"{base}/nowhere" in done.stderr
        assert not machine.is_mounted(f"{base}/merged")

    def test_fstab(self, machine: Machine) -> None:
        """A line of fstab becomes a unit that mounts and unmounts."""
        base = machine.layers("tab")
        with (machine.root / "etc/fstab").open("a") as fstab:
            fstab.write(
                f"tab {base}/merged fuse.overlayfs-py noauto,nofail,noatime,{self.options(base)} 0 0\n"
            )
        machine.check("systemctl", "daemon-reload")
        machine.check("systemctl", "start", "srv-tab-merged.mount")
        assert machine.check("cat", f"{base}/merged/hello") == "from the lower"
        assert "noatime" in machine.check("findmnt", "-no", "OPTIONS", f"{base}/merged")
        machine.check("systemctl", "stop", "srv-tab-merged.mount")
        assert not machine.is_mounted(f"{base}/merged")

    def test_mount_unit(self, machine: Machine) -> None:
        """A .mount unit with Type=fuse.overlayfs-py; a failing one is reported as failed."""
        base = machine.layers("unit")
        unit = machine.root / "etc/systemd/system/srv-unit-merged.mount"
        text = (
            f"[Mount]\nWhat=unit\nWhere={base}/merged\nType=fuse.overlayfs-py\nOptions={self.options(base)}\n"
        )
        unit.write_text(text)
        machine.check("systemctl", "daemon-reload")
        machine.check("systemctl", "start", "srv-unit-merged.mount")
        machine.check("sh", "-c", f"echo x > {base}/merged/x")
        machine.check("systemctl", "stop", "srv-unit-merged.mount")
        assert (machine.root / "srv/unit/upper/x").read_text() == "x\n"
        unit.write_text(text.replace("/lower", "/nowhere"))
        machine.check("systemctl", "daemon-reload")
        assert machine.systemctl("start", "srv-unit-merged.mount").returncode != 0
        assert machine.show("srv-unit-merged.mount", "ActiveState") == "failed"
