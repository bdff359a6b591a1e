"""The administrator's token if none is configured. It is created at the first start of the web process, in
its folder, readable only by its user and root. `prichal token show` prints it."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from controller.config import Settings
from controller.domain.secret import Secret

log = logging.getLogger(__name__)


def with_token(settings: Settings) -> Settings:
    """Return the settings with a token, or without one if it cannot be stored: the admin API is closed then."""
    if settings.web.admin_token:
        return settings
    if settings.web.admin_token is not None:
        log.warning("the admin API has no token: the file of web.adminTokenFile may not be read by this user")
        return settings
    try:
        token = _kept(settings.admin_token_file)
    except (OSError, UnicodeDecodeError) as error:
        log.warning("the admin API has no token: %s", error)
        return settings
    return replace(settings, web=replace(settings.web, admin_token=token))


def _kept(path: Path) -> Secret:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Readable by its user alone.
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w") as file:
                file.write(f"{secrets.token_urlsafe(32)}\n")
            with suppress(FileExistsError):
                os.link(draft, path)  # The file appears atomically, and the first one stays.
        finally:
            os.unlink(draft)
    return Secret(path.read_text().strip())
