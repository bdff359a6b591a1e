"""Host keys against known_hosts lines; OpenSSH's own ssh-keygen makes the hashed ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controller.adapters.git.known_hosts import HostKey, HostKeyCheck, host_name, judge, parse
from tests.support.git_servers import make_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two ed25519 keys and an ecdsa one, each as `type base64`."""
    folder = tmp_path_factory.mktemp("keys")
    kinds = {"one": "ed25519", "two": "ed25519", "ecdsa": "ecdsa"}
    return {name: " ".join(make_key(folder / name, kind).split()[:2]) for name, kind in kinds.items()}


def key(line: str) -> HostKey:
    return parse(f"any {line}")[0].key


@pytest.mark.parametrize(
    ("patterns", "name", "verdict"),
    [
        ("git.example.org", "git.example.org", HostKeyCheck.KNOWN),
        ("git.example.org", "GIT.example.org", HostKeyCheck.KNOWN),
        ("git.example.org,10.0.0.1", "10.0.0.1", HostKeyCheck.KNOWN),
        ("git.example.org", "git.example.com", HostKeyCheck.UNKNOWN),
        ("git.example.org", "[git.example.org]:2222", HostKeyCheck.UNKNOWN),
        ("[git.example.org]:2222", "[git.example.org]:2222", HostKeyCheck.KNOWN),
        ("[git.example.org]:2222", "git.example.org", HostKeyCheck.UNKNOWN),
        ("*.example.org", "git.example.org", HostKeyCheck.KNOWN),
        ("10.0.0.?", "10.0.0.7", HostKeyCheck.KNOWN),
        ("10.0.0.?", "10.0.0.77", HostKeyCheck.UNKNOWN),
        ("*.example.org,!git.example.org", "git.example.org", HostKeyCheck.UNKNOWN),
        ("git.example.org.", "gitXexample.org", HostKeyCheck.UNKNOWN),
    ],
)
def test_names(keys: dict[str, str], patterns: str, name: str, verdict: HostKeyCheck) -> None:
    assert judge(parse(f"{patterns} {keys['one']} a comment\n"), name, key(keys["one"])) is verdict


@pytest.mark.parametrize("name", ["git.example.org", "[git.example.org]:2222"])
def test_hashed_names(keys: dict[str, str], name: str, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{name} {keys['one']}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    text = file.read_text()
    assert name not in text
    assert judge(parse(text), name, key(keys["one"])) is HostKeyCheck.KNOWN
    assert judge(parse(text), "git.example.com", key(keys["one"])) is HostKeyCheck.UNKNOWN


def test_another_key_of_the_same_type_is_a_mismatch(keys: dict[str, str]) -> None:
    known = parse(f"host {keys['one']}\n")
    assert judge(known, "host", key(keys["two"])) is HostKeyCheck.MISMATCH
    assert judge(known, "host", key(keys["ecdsa"])) is HostKeyCheck.UNKNOWN


def test_a_revoked_key_is_refused_even_if_it_is_also_trusted(keys: dict[str, str]) -> None:
    known = parse(f"host {keys['one']}\n@revoked * {keys['one']}\n")
    assert judge(known, "host", key(keys["one"])) is HostKeyCheck.REVOKED


def test_lines_that_make_no_sense_grant_nothing(keys: dict[str, str]) -> None:
    kind, blob = keys["one"].split()
    lines = [
        "# comment",
        "",
        "host",
        f"host {kind}",
        f"host {kind} not*base64",
        f"host ssh-rsa {blob}",  # says another type than the key itself
        f"@cert-authority host {kind} {blob}",
        f"|1|broken {kind} {blob}",
        f"|1|c2FsdA==|AAAA {kind} {blob}",
        f"@unknown host {kind} {blob}",
    ]
    for line in lines:
        assert judge(parse(line), "host", key(keys["one"])) is HostKeyCheck.UNKNOWN, line


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    line = make_key(tmp_path / "key")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], check=True, capture_output=True, text=True
    )
    assert key(line).fingerprint == shown.stdout.split()[1]
    assert key(line).type == "ssh-ed25519"


def test_the_default_port_is_not_written() -> None:
    assert [host_name("h", port) for port in (None, 22, 2222)] == ["h", "h", "[h]:2222"]
