"""Checks of the configuration and the platform folder."""

from __future__ import annotations

import stat
from pathlib import Path

from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM
from controller.manifests import load_platform
from controller.manifests.validate import read_folder


def check_config(settings: Settings) -> str:
    return (
        Localizable("read from {source}", source=settings.source)
        if settings.source
        else Localizable("defaults, since no file was given or found")
    )


def check_platform(settings: Settings) -> str:
    source, folder = settings.platform, Path(settings.platform.path)
    if source.url:
        return Localizable(
            "the Git repository {url}; its state is shown by: prichal status {platform}",
            url=source.url,
            platform=PLATFORM,
        )
    if not folder.is_dir():
        raise Finding(
            Localizable("the folder {folder} does not exist", folder=folder), f"mkdir -p -m 0700 {folder}"
        )
    spec = load_platform(tuple(read_folder(folder)), settings)
    return Localizable(
        "{apps} apps, {repositories} repositories in {folder}",
        apps=len(spec.apps),
        repositories=len(spec.repositories),
        folder=folder,
    )


def check_platform_secrets(settings: Settings) -> str:
    if settings.platform.url:
        return Localizable("in a Git repository")
    folder = Path(settings.platform.path)
    if not folder.is_dir():
        return Localizable("none")
    closed = not folder.stat().st_mode & stat.S_IXOTH
    for path in sorted(folder.rglob("*")) if not closed else ():
        if path.is_file() and path.stat().st_mode & stat.S_IROTH and _has_plain_secret(path.read_bytes()):
            raise Finding(
                Localizable("{path} contains a Secret and every user may read it", path=path),
                f"chmod 0600 {path}",
            )
    return Localizable("other users cannot read the secrets")


def _has_plain_secret(content: bytes) -> bool:
    return b"kind: Secret" in content and b"ENC[AES256_GCM," not in content
