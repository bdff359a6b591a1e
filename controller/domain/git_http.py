"""Git over HTTP to repositories hosted here: what the web process asks the Git service for, and how that is written on
their socket. Pure. The service runs Git and lets it read and write the rest of the connection
(docs/adr/0024-git-over-http-has-a-service-of-its-own.md); it believes nothing but what `read_exchange` returns.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Final
from urllib.parse import unquote

from controller.domain.names import is_dns_label
from controller.domain.people.accounts import is_account_name

#: Stands for the holder of the admin token, who has no account.
TOKEN_HOLDER: Final = "admin-token"  # noqa: S105 - a name
#: Bytes of the length before a request, and the most bytes of one.
PREFIX: Final = struct.Struct("!H")
LONGEST: Final = 1024
#: In the environment of a repository's hook: the id of the push. By it the web process knows who pushes what Git has
#: accepted; nobody else learns it.
PUSH_VARIABLE: Final = "PRICHAL_PUSH"
_PUSH: Final = re.compile(r"(?:[0-9a-f]{32})?")
_PROTOCOL: Final = re.compile(r"[a-z0-9=:.-]{0,64}")


class GitService(StrEnum):
    """What Git calls a service: clients fetch from the first and push to the second."""

    UPLOAD_PACK = "git-upload-pack"
    RECEIVE_PACK = "git-receive-pack"

    @property
    def writes(self) -> bool:
        return self is GitService.RECEIVE_PACK


@dataclass(frozen=True)
class GitExchange:
    """`user` may do this to this repository. With `advertises` the service lists its refs, which is how a fetch or
    push begins. `protocol` is what the client sends as Git-Protocol; `push` is the secret id of a push, else "". Of
    a `large` push the pack is kept as it is; objects of small ones are stored one by one."""

    repository: str
    service: GitService
    advertises: bool
    user: str
    protocol: str = ""
    push: str = ""
    large: bool = False


def write_exchange(exchange: GitExchange) -> bytes:
    content = json.dumps(asdict(exchange)).encode()
    return PREFIX.pack(len(content)) + content


def read_exchange(content: bytes) -> GitExchange:
    """Return the request without its length. Raises ValueError, also for what `write_exchange` does not write."""
    try:
        raw = json.loads(content)
    except RecursionError:
        raise ValueError("a request is nested too deeply") from None
    fields = {
        "repository": str,
        "service": str,
        "advertises": bool,
        "user": str,
        "protocol": str,
        "push": str,
        "large": bool,
    }
    if not isinstance(raw, dict) or {name: type(value) for name, value in raw.items()} != fields:
        raise ValueError("a request has other fields")
    if not is_dns_label(raw["repository"]) or not is_account_name(raw["user"]):
        raise ValueError("neither a repository nor a person has such a name")
    if not _PUSH.fullmatch(raw["push"]):
        raise ValueError("no push has such an id")
    return GitExchange(
        raw["repository"],
        GitService(raw["service"]),
        raw["advertises"],
        raw["user"],
        known_protocol(raw["protocol"]),
        raw["push"],
        raw["large"],
    )


def known_protocol(text: str) -> str:
    """Return the version that a client asks for (`version=2`), or "", the oldest."""
    return text if _PROTOCOL.fullmatch(text) else ""


def clone_path(repository: str) -> str:
    return f"/-/git/{repository}.git"


def hosted_name(url: str, repositories: PurePath) -> str:
    """Return the name of a repository hosted here by the address from which it is fetched; "" for all others."""
    path = PurePath(unquote(url.removeprefix("file://")) if url.startswith("file:///") else url)
    name = path.name.removesuffix(".git")
    is_hosted = path.parent == repositories and path.name == f"{name}.git" and is_dns_label(name)
    return name if is_hosted else ""
