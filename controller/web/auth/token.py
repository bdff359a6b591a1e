"""The administrator's token where none is configured: made at the first start of the web process, and kept in its
folder, readable by its user alone (and by root). `prichal token show` prints it."""

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
    """The settings with a token. Without one, should it be impossible to keep it: the admin API is closed then."""
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
                os.link(draft, path)  # The file is whole when it appears, and the first one stays.
        finally:
            os.unlink(draft)
    return Secret(path.read_text().strip())
