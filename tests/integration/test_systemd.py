"""The units: systemd itself says whether they are valid and how much they leave open; the installer, whether it can be
trusted with a host that is in use. Runs systemd's offline checkers; no systemd has to be running."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("prichal.target", "prichal-daemon.service", "prichal-web.socket", "prichal-web.service")
COMMAND = "/opt/prichal/.venv/bin/prichal"


def run(*command: str | Path, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )


def settings(unit: str) -> Mapping[str, Sequence[str]]:
    """All values of each key, in order: unlike in INI files, repeating a key adds to it."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / unit).read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copies in which the command exists; all else is what gets installed."""
    command = tmp_path / "prichal"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for unit in UNITS:
        text = (ROOT / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(text.replace(COMMAND, str(command)))
    return tmp_path


class TestVerify:
    def test_systemd_has_nothing_to_say(self, units: Path) -> None:
        result = run("systemd-analyze", "verify", "--man=no", *(units / unit for unit in UNITS))

        about_ours = [line for line in result.stderr.splitlines() if "prichal" in line]
        assert about_ours == []
        assert result.returncode == 0, result.stderr

    def test_an_error_would_be_seen(self, units: Path) -> None:
        unit = units / "prichal-daemon.service"
        unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gentle"))

        result = run("systemd-analyze", "verify", "--man=no", unit)

        assert "gentle" in result.stderr


class TestExposure:
    @pytest.mark.parametrize(
        ("unit", "limit"), [("prichal-web.service", 3.0), ("prichal-daemon.service", 5.0)]
    )
    def test_stays_below(self, units: Path, unit: str, limit: float) -> None:
        result = run("systemd-analyze", "security", "--offline=true", "--no-pager", units / unit)

        overall = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
        assert overall, result.stdout + result.stderr
        assert float(overall[1]) < limit

    def test_web_has_no_way_to_docker_and_to_the_secrets(self) -> None:
        web = settings("prichal-web.service")

        hidden = " ".join(web["InaccessiblePaths"])
        for path in ("/run/docker.sock", "/var/lib/prichal/private", "/etc/prichal/platform"):
            assert f"-{path}" in hidden.split()
        assert web["User"] == ["prichal-web"]
        assert web["SupplementaryGroups"] == ["prichal"]
        assert web["ReadWritePaths"] == ["/var/lib/prichal/db"]

    def test_stopping_the_daemon_leaves_what_is_not_its_own(self) -> None:
        daemon = settings("prichal-daemon.service")

        assert daemon["KillMode"] == ["mixed"]
        assert "BindsTo" not in daemon
        assert "Requires" not in daemon  # a restart of Docker must not stop the daemon


class TestFilesOfTheHost:
    def test_users(self, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (etc / "group").write_text("root:x:0:\n")

        result = run(
            "systemd-sysusers", "--dry-run", f"--root={tmp_path}", ROOT / "systemd" / "prichal.sysusers"
        )

        assert result.returncode == 0, result.stderr
        for line in ("group 'prichal'", "user 'prichal'", "user 'prichal-web'"):
            assert f"Creating {line}" in result.stdout + result.stderr

    def test_folders(self) -> None:
        """What is private to whom, as a table; systemd-tmpfiles itself could only be run as root."""
        rules = {
            path: (mode, user, group)
            for line in (ROOT / "systemd" / "prichal.tmpfiles").read_text().splitlines()
            if line[0] in "dfz"
            for _, path, mode, user, group in [line.split()]
        }
        assert rules["/var/lib/prichal/private"] == ("0700", "prichal", "prichal")
        assert rules["/etc/prichal/platform"] == ("0700", "prichal", "prichal")
        assert rules["/var/lib/prichal/db"] == ("2770", "prichal", "prichal")
        assert rules["/var/lib/prichal/db/state.db"] == ("0660", "prichal", "prichal")
        assert rules["/etc/prichal/config.yaml"] == ("0640", "root", "prichal")


class TestInstall:
    """The installer, into a folder: it builds a release with pip, so one test goes through its whole life."""

    def test_install_and_upgrade(self, tmp_path: Path) -> None:
        host = tmp_path / "host"
        checkout = tmp_path / "checkout"
        _copy_checkout(checkout)

        first = run(checkout / "systemd/install", "--destdir", host)
        assert first.returncode == 0, first.stderr

        link = host / "opt/prichal/.venv"
        release = link.resolve()
        assert release.parent == host / "opt/prichal/releases"
        version = run(link / "bin/python", "-I", "-c", "import controller; print(controller.__file__)")
        assert version.stdout.startswith(str(link.parent)), version.stderr
        assert (link / "bin/prichal").read_text().startswith("#!/opt/prichal/releases/")
        for unit in UNITS:
            assert (host / "etc/systemd/system" / unit).read_text() == (ROOT / "systemd" / unit).read_text()

        config = host / "etc/prichal/config.yaml"
        config.write_text("# edited\n")
        again = run(checkout / "systemd/install", "--destdir", host)
        assert again.returncode == 0, again.stderr
        assert link.resolve() == release
        assert config.read_text() == "# edited\n"

        # An upgrade that fails, here for a package that is not the one locked, must leave what runs in place.
        lock = checkout / "requirements.lock"
        lock.write_text(re.sub("sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
        failed = run(checkout / "systemd/install", "--destdir", host)
        assert failed.returncode != 0
        assert link.resolve() == release

    def test_refuses_what_it_does_not_know(self) -> None:
        result = run(ROOT / "systemd/install", "--prefix", "/somewhere")

        assert result.returncode != 0
        assert "usage" in result.stderr


def _copy_checkout(target: Path) -> None:
    for folder in ("controller", "scripts", "systemd", "docs", "manifests-schema"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (
        "setup.cfg",
        "pyproject.toml",
        "requirements.lock",
        "README.md",
        "LICENSE",
        "config.example.yaml",
    ):
        shutil.copy(ROOT / file, target / file)
