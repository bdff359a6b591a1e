"""Verifies that a commit was signed by an allowed person: SSH signatures with `ssh-keygen`, OpenPGP ones with
`gpgv`.

The keys come from the Secret that a Repository names under `spec.verify.signers`: `allowedSigners`, a file as
described under "ALLOWED SIGNERS" in ssh-keygen(1), and `keys`, OpenPGP public keys in ASCII armour. Both
programs get only files of a temporary folder, so keyrings of the host's users are not used.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

SSH_MARK = b"-----BEGIN SSH SIGNATURE-----"
NAMESPACE = "git"  # what git puts into its signatures, so that one made for a mail is not accepted
TIMEOUT = 30.0  # seconds


def verify(commit: str, signature: bytes | None, payload: bytes | None, signers: SecretSpec) -> str:
    """Return the signer's name. Raises Stalled `SignatureInvalid`, `VerifierMissing` if the program is not
    installed.
    """
    if not signature or payload is None:
        raise _invalid(commit, Localizable("it is not signed"))
    with tempfile.TemporaryDirectory(prefix="prichal-verify-") as place:
        folder = Path(place)
        (folder / "signature").write_bytes(signature)
        if signature.lstrip().startswith(SSH_MARK):
            return _verify_ssh(commit, folder, payload, _text(signers, "allowedSigners", commit))
        return _verify_openpgp(commit, folder, payload, _text(signers, "keys", commit))


def _text(signers: SecretSpec, key: str, commit: str) -> str:
    value = signers.get(key)
    if value is None:
        kind = Localizable("an SSH") if key == "allowedSigners" else Localizable("an OpenPGP")
        raise _invalid(
            commit,
            Localizable(
                "it has {kind} signature, but the Secret {name!r} has no {key}",
                kind=kind,
                name=signers.name,
                key=key,
            ),
        )
    return value.reveal()


def _verify_ssh(commit: str, folder: Path, payload: bytes, allowed: str) -> str:
    (folder / "allowed").write_text(allowed.rstrip() + "\n")
    files = ["-f", str(folder / "allowed"), "-s", str(folder / "signature")]
    found = _run(["ssh-keygen", "-Y", "find-principals", *files])
    for principal in found.stdout.decode("utf-8", "replace").splitlines():
        check = ["ssh-keygen", "-Y", "verify", *files, "-I", principal, "-n", NAMESPACE]
        if _run(check, payload).returncode == 0:
            return principal
    raise _invalid(
        commit, Localizable("its SSH signature is not by an allowed signer, or does not match its content")
    )


def _verify_openpgp(commit: str, folder: Path, payload: bytes, keys: str) -> str:
    ring = folder / "ring.gpg"
    home = ["--homedir", str(folder)]
    dearmored = _run(["gpg", *home, "--batch", "--dearmor"], keys.encode())
    ring.write_bytes(dearmored.stdout)
    result = _run(
        ["gpgv", *home, "--status-fd", "1", "--keyring", str(ring), str(folder / "signature"), "-"], payload
    )
    good = [line for line in result.stdout.decode("utf-8", "replace").splitlines() if " GOODSIG " in line]
    if result.returncode != 0 or not good:
        raise _invalid(
            commit,
            Localizable("its OpenPGP signature is not by an allowed key, or does not match its content"),
        )
    return good[0].split(" GOODSIG ")[1].partition(" ")[2]


def _run(command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        package = {"gpg": "gnupg", "gpgv": "gpgv"}.get(command[0], "openssh-client")
        raise Stalled(
            Reason.VERIFIER_MISSING,
            Localizable(
                "{command} is needed to check signatures; install {package}",
                command=command[0],
                package=package,
            ),
        ) from None
    except subprocess.TimeoutExpired:
        raise Transient(
            Reason.VERIFIER_TIMEOUT,
            Localizable("{command} did not answer within {timeout} s", command=command[0], timeout=TIMEOUT),
        ) from None


def _invalid(commit: str, why: str) -> Stalled:
    return Stalled(
        Reason.SIGNATURE_INVALID,
        Localizable(
            "commit {commit} is not applied: {why}. Sign it with an allowed key (git commit -S), or "
            "add its signer",
            commit=commit[:12],
            why=why,
        ),
    )
