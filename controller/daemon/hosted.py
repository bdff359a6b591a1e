"""Repositories hosted on this machine, as `prichal repo` lists and creates them. Their hook belongs to
`controller.adapters.hosted`; here it gets the settings.
"""

from __future__ import annotations

import grp
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from controller.adapters import hosted, post_receive
from controller.config import Settings
from controller.domain.secret import Secret


@dataclass(frozen=True)
class Hosted:
    name: str
    path: Path


def repositories(settings: Settings) -> tuple[Hosted, ...]:
    """Return the hosted repositories, sorted by name."""
    found = sorted(settings.repositories.glob("*.git")) if settings.repositories.is_dir() else []
    return tuple(Hosted(path.name.removesuffix(".git"), path) for path in found)


def create(settings: Settings, name: str, group: str | None = None) -> tuple[Hosted, Secret]:
    """Create the repository, or renew its hook. Returns it with the secret that its hook signs with, which
    stays the same.

    Members of `group` may push; by default it is the group of the folder of repositories.
    """
    settings.repositories.mkdir(parents=True, exist_ok=True)
    secret = hook_secret(settings, name) or Secret(secrets.token_urlsafe(32))
    group = group or grp.getgrgid(settings.repositories.stat().st_gid).gr_name
    path = hosted.create(settings.repositories, name, local_url(settings), secret, group)
    return Hosted(name, path), secret


def hook_secret(settings: Settings, name: str) -> Secret | None:
    """Return the secret that the hook of repository `name` signs with; None if there is no such repository."""
    try:
        content = json.loads((settings.repositories / f"{name}.git" / post_receive.CONFIG).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Secret(content["secret"])


def local_url(settings: Settings) -> str:
    """Return the URL of the web process on this host."""
    host, _, port = settings.web.listen.rpartition(":")
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what an address means, or is said to containers
    return f"http://{everywhere.get(host, host)}:{port}"
