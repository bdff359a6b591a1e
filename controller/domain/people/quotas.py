"""How many apps a person may make, under which names, and what these may use together. Pure.

The share of an app is the `limits` of its PlatformApp, which the plan of each commit is held to; so it is enough that
the sum of the shares of a person's apps stays within their quota.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from controller.domain.apps.spec import Limits
from controller.domain.localizable import Localizable
from controller.domain.names import is_dns_label
from controller.domain.units import render_size

#: Stands for the person in the pattern of prefixes.
USER: Final = "{user}"
_LONGEST_USER: Final = 24


@dataclass(frozen=True)
class Quota:
    """The most that the apps of one person may be, and use together."""

    apps: int
    cpus: float
    memory: int
    storage: int
    gpus: int


RESOURCES: Final = tuple(field.name for field in fields(Quota))


@dataclass(frozen=True)
class AppShare:
    """An app that a person has made, with what it may use."""

    app: str
    owner: str
    limits: Limits


def with_overrides(quota: Quota, overrides: Mapping[str, float]) -> Quota:
    """Return the quota of a person for whom some numbers were set."""
    return Quota(
        int(overrides.get("apps", quota.apps)),
        overrides.get("cpus", quota.cpus),
        int(overrides.get("memory", quota.memory)),
        int(overrides.get("storage", quota.storage)),
        int(overrides.get("gpus", quota.gpus)),
    )


def prefix_of(pattern: str, user: str) -> str:
    """Return how names of apps of a person begin. Names other than DNS labels, and long ones, get a digest: no two
    people have one prefix."""
    label = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:_LONGEST_USER].strip("-")
    if label != user:
        label = f"{label}-{hashlib.sha256(user.encode()).hexdigest()[:6]}".lstrip("-")
    return pattern.replace(USER, label)


def name_problem(name: str, pattern: str, user: str, others: Iterable[str] = ()) -> str:
    """Return why a person may not call a new app so, or "". `user` is empty for those who may choose any name;
    `others` are all accounts: a name belongs to the one whose prefix is the longest."""
    prefix = prefix_of(pattern, user) if user else ""
    if not name.startswith(prefix) or name == prefix:
        return Localizable(
            "names of your apps begin with {prefix!r}, for example {prefix}demo", prefix=prefix
        )
    if not is_dns_label(name):
        return Localizable(
            "the name of an app has 1 to 63 of a-z, 0-9 and hyphens, beginning and ending with a letter or digit"
        )
    if user and any(_is_nearer(name, prefix_of(pattern, other), prefix) for other in others):
        return Localizable("names that begin like this belong to another person")
    return ""


def _is_nearer(name: str, other: str, prefix: str) -> bool:
    return len(other) > len(prefix) and name.startswith(other)


def used(shares: Iterable[AppShare], owner: str) -> Quota:
    """Return what the apps of a person may use together."""
    own = [share.limits for share in shares if share.owner == owner]
    return Quota(
        len(own),
        sum(limits.cpus or 0.0 for limits in own),
        sum(limits.memory or 0 for limits in own),
        sum(limits.storage or 0 for limits in own),
        sum(limits.gpus or 0 for limits in own),
    )


def quota_problems(quota: Quota, present: Quota, asked: Limits) -> tuple[str, ...]:
    """Return what of a new app does not fit into what is left of a quota."""
    wanted = Quota(1, asked.cpus or 0.0, asked.memory or 0, asked.storage or 0, asked.gpus or 0)
    found = []
    for name in RESOURCES:
        most, has, more = (getattr(each, name) for each in (quota, present, wanted))
        if more > 0 and has + more > most + 1e-9:
            left = max(most - has, 0)
            found.append(
                Localizable(
                    "{resource}: {wanted} asked for, {left} of {most} left",
                    resource=name,
                    wanted=_shown(name, more),
                    left=_shown(name, left),
                    most=_shown(name, most),
                )
            )
    return tuple(found)


def _shown(name: str, value: float) -> str:
    return render_size(int(value)) if name in ("memory", "storage") else f"{value:g}"
