"""Files as sops writes them: the real program where it is (`make sops`), and for tests that need none of it an
encrypter of our own, which `tests/integration/test_sops.py` has the real program read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pyrage import x25519

from controller.age import AgeKey, AgeKeys, new_key
from controller.domain.secret import Secret
from controller.sops.values import mac_bytes

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "sops"
TIME = "2026-11-30T12:00:00Z"


def recorded_keys() -> AgeKeys:
    """The key for which the files in tests/fixtures/sops were encrypted."""
    identity = (FIXTURES / "identity.txt").read_text().split()[-1]
    public = str(x25519.Identity.from_str(identity).to_public())
    return AgeKeys("demo", (AgeKey(public, Secret(identity)),))


def some_keys(owner: str = "demo", number: int = 1) -> AgeKeys:
    return AgeKeys(owner, tuple(new_key() for _ in range(number)))


def sops_binary() -> Path | None:
    """Where `make sops` puts it, unless the variable PRICHAL_SOPS names another."""
    named = os.environ.get("PRICHAL_SOPS")
    built = ROOT / "build" / "tools" / "sops"
    found = named or (str(built) if built.exists() else shutil.which("sops"))
    return Path(found) if found else None


@dataclass(frozen=True)
class Sops:
    """The real program in a folder of its own, with the private keys of a test."""

    folder: Path
    keys: AgeKeys

    @classmethod
    def of(cls, folder: Path, keys: AgeKeys) -> Sops:
        if sops_binary() is None:
            pytest.skip("no sops: `make sops` builds it")
        identities = "\n".join(key.identity.reveal() for key in keys.keys)
        (folder / "identities.txt").write_text(identities)
        return cls(folder, keys)

    def encrypt(self, name: str, content: str | bytes, *options: str, **rule: object) -> bytes:
        """Encrypt a file of this name, for all keys. `rule` is that of `.sops.yaml`."""
        raw = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(raw)
        recipients = ",".join(self.keys.recipients)
        rules = {"creation_rules": [{"age": recipients, **rule}]}
        (self.folder / ".sops.yaml").write_text(json.dumps(rules))
        return self.run("encrypt", *options, name)

    def decrypt(self, name: str, content: bytes, *options: str) -> bytes:
        (self.folder / name).write_bytes(content)
        return self.run("decrypt", *options, name)

    def run(self, *arguments: str) -> bytes:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SOPS_AGE_KEY_FILE": str(self.folder / "identities.txt"),
        }
        done = subprocess.run(
            [str(sops_binary()), *arguments], cwd=self.folder, env=env, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


# --- without the program --------------------------------------------------------------------------------------------


def encrypted_document(
    document: Mapping[str, Any],
    keys: AgeKeys,
    is_secret: Callable[[str], bool] = lambda name: name in ("data", "stringData"),
    rule: Mapping[str, Any] | None = None,
    data_key: bytes = b"",
) -> str:
    """A document as JSON, which is YAML, with the values below such names encrypted."""
    key = data_key or os.urandom(32)
    mac = hashlib.sha512()

    def walk(value: Any, names: tuple[str, ...], inside: bool) -> Any:
        if isinstance(value, Mapping):
            return {n: walk(v, (*names, n), inside or is_secret(n)) for n, v in value.items()}
        if isinstance(value, list):
            return [walk(each, names, inside) for each in value]
        if value is None:
            return None
        mac.update(mac_bytes(value))
        return sealed(value, key, "".join(f"{n}:" for n in names)) if inside and value != "" else value

    found = walk(document, (), False)
    metadata = {
        "age": [{"recipient": r, "enc": armored(key, r)} for r in keys.recipients],
        "lastmodified": TIME,
        "mac": sealed(mac.hexdigest().upper(), key, TIME),
        "version": "3.13.3",
        **({"encrypted_regex": "^(data|stringData)$"} if rule is None else rule),
    }
    return json.dumps({**found, "sops": metadata}, indent=1)


def armored(key: bytes, recipient: str) -> str:
    return bytes(pyrage.encrypt(key, [x25519.Recipient.from_str(recipient)], armored=True)).decode()


def sealed(value: Any, key: bytes, place: str) -> str:
    types = {bool: "bool", int: "int", float: "float", str: "str"}
    nonce = os.urandom(32)
    whole = AESGCM(key).encrypt(nonce, mac_bytes(value), place.encode())
    parts = (base64.b64encode(part).decode() for part in (whole[:-16], nonce, whole[-16:]))
    data, iv, tag = parts
    return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:{types[type(value)]}]"
