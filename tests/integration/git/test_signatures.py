"""`spec.verify.signers`: commits signed by git itself, with SSH and OpenPGP keys made for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.adapters.git import GitSources
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from tests.support.git_servers import Author, git, make_key
from tests.support.git_specs import repository, secret


@dataclass(frozen=True)
class Signer:
    """`options` of `git -c` that sign with the key, and the Secret that allows it."""

    options: tuple[str, ...]
    allowed: SecretSpec
    env: dict[str, str]


def sign(author: Author, signer: Signer, text: str) -> str:
    (author.tree / "a.yaml").write_text(text)
    git(author.tree, "add", "--all")
    settings = [argument for option in signer.options for argument in ("-c", option)]
    git(author.tree, *settings, "commit", "--quiet", "-S", "-m", "signed", env=signer.env)
    return author.push()


def ssh_signer(folder: Path, name: str, namespaces: str = "git") -> Signer:
    public = make_key(folder / name)
    line = f'{name}@example.org namespaces="{namespaces}" {public}'
    options = ("gpg.format=ssh", f"user.signingKey={folder / name}")
    return Signer(options, secret(allowedSigners=line), {})


@pytest.fixture
def gnupg_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("gpg") is None or shutil.which("gpgv") is None:
        pytest.skip("gpg and gpgv are not installed")
    home = tmp_path_factory.mktemp("g")  # short: the agent's socket lies in it
    home.chmod(0o700)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)


def openpgp_signer(home: Path, name: str) -> Signer:
    user = f"{name} <{name}@example.org>"
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", user, "ed25519", "sign"], check=True, capture_output=True)
    keys = subprocess.run(
        [*gpg, "--armor", "--export", user], check=True, capture_output=True, text=True
    ).stdout
    return Signer((f"user.signingKey={name}@example.org",), secret(keys=keys), {"GNUPGHOME": str(home)})


def refusal(sources: GitSources, author: Author, signers: SecretSpec) -> str:
    with pytest.raises(Stalled) as caught:
        sources.fetch(repository(str(author.remote), signers="signers"), None, signers)
    assert caught.value.reason == "SignatureInvalid"
    return caught.value.message


def check(sources: GitSources, author: Author, ada: Signer, bob: Signer) -> None:
    spec = repository(str(author.remote), signers="signers")
    commit = sign(author, ada, "1")
    assert sources.fetch(spec, None, ada.allowed).commit == commit
    assert "not by an allowed" in refusal(sources, author, bob.allowed)
    sign(author, bob, "2")
    assert "not by an allowed" in refusal(sources, author, ada.allowed)
    author.commit({"a.yaml": "3"})
    assert "not signed" in refusal(sources, author, ada.allowed)


def test_ssh_signatures(sources: GitSources, author: Author, tmp_path: Path) -> None:
    check(sources, author, ssh_signer(tmp_path, "ada"), ssh_signer(tmp_path, "bob"))


def test_openpgp_signatures(sources: GitSources, author: Author, gnupg_home: Path) -> None:
    check(sources, author, openpgp_signer(gnupg_home, "ada"), openpgp_signer(gnupg_home, "bob"))


def test_a_signature_that_belongs_to_another_commit(
    sources: GitSources, author: Author, tmp_path: Path
) -> None:
    """The signature stays, what was signed is changed: a forger has no key."""
    ada = ssh_signer(tmp_path, "ada")
    raw = git(author.tree, "cat-file", "commit", sign(author, ada, "1")).replace("signed", "forged")
    (tmp_path / "forged").write_text(raw + "\n")
    forged = git(author.tree, "hash-object", "-t", "commit", "-w", str(tmp_path / "forged"))
    author.push(f"{forged}:refs/heads/main")
    assert "does not match its content" in refusal(sources, author, ada.allowed)


def test_a_key_that_is_allowed_for_something_else(
    sources: GitSources, author: Author, tmp_path: Path
) -> None:
    mail = ssh_signer(tmp_path, "ada", namespaces="email")
    sign(author, mail, "1")
    assert "not by an allowed" in refusal(sources, author, mail.allowed)


def test_the_secret_lacks_the_kind_of_key(sources: GitSources, author: Author, tmp_path: Path) -> None:
    sign(author, ssh_signer(tmp_path, "ada"), "1")
    assert "has no allowedSigners" in refusal(sources, author, secret(keys="x"))


def test_no_program_to_check_with(
    sources: GitSources, author: Author, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = ssh_signer(tmp_path, "ada")
    sign(author, ada, "1")
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(Stalled, match="openssh-client") as caught:
        sources.fetch(repository(str(author.remote), signers="signers"), None, ada.allowed)
    assert caught.value.reason == "VerifierMissing"
