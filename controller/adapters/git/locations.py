"""Parses and checks the location of a repository, `spec.url`, before anything connects.

Local paths are the reason: otherwise people who may write a Repository could read any repository that the
daemon can. They are allowed below the folders in the configuration, with symbolic links resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret


class UrlScheme(StrEnum):
    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"
    GIT = "git"
    LOCAL = "file"


#: git's short form of SSH addresses: `user@host:path`.
SCP_STYLE = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[\w.-]+):(?!//|:)(?P<path>\S+)")


@dataclass(frozen=True)
class Location:
    """`url` is what libgit2 gets; a password in it is only in `password`."""

    scheme: UrlScheme
    url: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: Secret | None = None


def locate(url: str, allowed: Iterable[Path]) -> Location:
    """Parse a URL. `allowed` has the folders for local repositories. Raises Stalled `UrlInvalid`,
    `PathNotAllowed`, `RepositoryNotFound`.
    """
    if url.startswith("/"):
        return _local(Path(url), allowed)
    if match := SCP_STYLE.fullmatch(url):
        return Location(UrlScheme.SSH, url, match["host"], None, match["user"])
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Stalled(
            Reason.URL_INVALID, Localizable("the repository's address is not a URL: {error}", error=error)
        ) from None
    if parts.scheme == UrlScheme.LOCAL:
        return _local(Path(unquote(parts.path)), allowed)
    if parts.scheme not in list(UrlScheme) or not parts.hostname:
        known = Localizable("https, http, ssh, git, an absolute path or user@host:path")
        raise Stalled(
            Reason.URL_INVALID,
            Localizable(
                "the repository's address must be one of {known}, not {shown!r}",
                known=known,
                shown=_shown(parts),
            ),
        )
    return Location(
        scheme=UrlScheme(parts.scheme),
        url=_without_password(parts),
        host=parts.hostname,
        port=port,
        user=unquote(parts.username) if parts.username else None,
        password=Secret(unquote(parts.password)) if parts.password else None,
    )


def _shown(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _without_password(parts: SplitResult) -> str:
    """Return the URL. SSH addresses keep their user, which libgit2 takes from them."""
    if parts.scheme != UrlScheme.SSH or not parts.username:
        return _shown(parts)
    return parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}").geturl()


def _local(path: Path, allowed: Iterable[Path]) -> Location:
    real = path.resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in allowed):
        raise Stalled(
            Reason.PATH_NOT_ALLOWED,
            Localizable(
                "the local repository {path} is not in an allowed folder. Add its folder to "
                "git.allowedPaths in the configuration, or create the repository with: prichal repo "
                "create",
                path=path,
            ),
        )
    if not real.is_dir():
        raise Stalled(Reason.REPOSITORY_NOT_FOUND, Localizable("there is no repository at {path}", path=path))
    return Location(UrlScheme.LOCAL, str(real))
