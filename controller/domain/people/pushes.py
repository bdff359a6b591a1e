"""Pushes over HTTPS while they last: who pushes, and which refs Git has accepted so far. Pure.

The web process knows who pushes, and Git which refs it accepts; only the hook of the repository, which Git runs then,
learns the latter. So each push has a random id: the web process gives it to the Git service, that one to the hook,
which sends it back with each ref. An id is good for one repository; somebody who knows only the secret of its hook
cannot speak for a person.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Final

SHOWN: Final = 3  # refs of a push that are told by name


@dataclass(frozen=True)
class PushUnderWay:
    """`digest` is that of the id, `hosted` the name of the repository; `by` is who pushes, `via` and `address` are how,
    as in the audit. `accepted` counts refs, of which `told` names the first ones. `left`: the connection has ended."""

    digest: str
    hosted: str
    by: str
    via: str
    address: str
    at: float  # Unix seconds
    accepted: int = 0
    told: str = ""
    left: bool = False

    def with_ref(self, after: str, ref: str) -> PushUnderWay:
        if self.accepted >= SHOWN:
            return replace(self, accepted=self.accepted + 1)
        told = ", ".join(filter(None, (self.told, told_ref(after, ref))))
        return replace(self, accepted=self.accepted + 1, told=told)

    def detail(self, sent: int) -> str:
        """Return the detail for the audit, of a push that sent so many refs."""
        if not self.accepted:
            return f"none of {sent} refs was accepted" if sent > 1 else "the ref was not accepted"
        return self.told + (f" and {self.accepted - SHOWN} more" if self.accepted > SHOWN else "")


def told_ref(after: str, ref: str) -> str:
    return f"{ref[:200]} at {after[:12]}" if after.strip("0") else f"{ref[:200]} deleted"


def new_push() -> str:
    return secrets.token_hex(16)


def digest_of_push(push: str) -> str:
    return hashlib.sha256(push.encode("utf-8", "replace")).hexdigest()
