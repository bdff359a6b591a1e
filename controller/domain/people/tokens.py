"""Makes API tokens of people from random texts."""

from __future__ import annotations

import hashlib
from typing import Final

from controller.domain.people.accounts import Scope, TokenRecord

#: So that programs which look for leaked secrets know it.
PREFIX: Final = "prichal_"
USUAL_DAYS, LONGEST_DAYS = 90, 366
_DAY: Final = 86400.0


def new_token(
    user: str, label: str, scope: Scope, days: int, now: float, random: str
) -> tuple[str, TokenRecord]:
    """Return the secret, which is shown once, and what is kept of it. `random` has at least 256 random bits."""
    secret = PREFIX + random
    id = hashlib.sha256(f"id {secret}".encode()).hexdigest()[:12]
    return secret, TokenRecord(id, user, label, scope, now, now + days * _DAY, 0.0)
