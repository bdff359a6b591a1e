"""What may be known of the keys of age, by which files in Git are encrypted for an app or for the platform folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_AGE_KEYS: Final = 5  # of an app
RECIPIENT: Final = re.compile(r"age1[a-z0-9]{10,4000}|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]{10,2000}")


class KeyAction(StrEnum):
    """`ROTATE`: make another key, and keep the others for reading. `RETIRE`: delete all but the newest."""

    ROTATE = "rotate"
    RETIRE = "retire"


@dataclass(frozen=True)
class PublicAgeKey:
    """`by` is who asked for it, "" for the first one, which the daemon has made; `at` in Unix seconds."""

    recipient: str
    by: str
    at: float


def sops_configuration(*recipients: str) -> str:
    """Return a `.sops.yaml` by which sops encrypts Secrets, and files of the folder `secrets/`, for these keys."""
    keys = ",".join(recipients)
    return (
        "creation_rules:\n"
        "  - path_regex: (^|/)secrets/\n"
        f"    age: {keys}\n"
        "  - path_regex: \\.ya?ml$\n"
        "    encrypted_regex: ^(data|stringData)$\n"
        f"    age: {keys}\n"
    )
