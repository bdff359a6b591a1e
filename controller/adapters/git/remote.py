"""One conversation with a Git server: which refs it has, and objects of them into a clone, within limits.

Limits hold against servers that hang or send without end: a deadline for the whole conversation, a shorter one for
silence, and a number of bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pygit2
from pygit2.callbacks import libgit2_callback
from pygit2.enums import ConfigLevel, CredentialType, FetchPrune
from pygit2.ffi import C, ffi

from controller.adapters.git import known_hosts
from controller.adapters.git.credentials import Access, Credential, read_host_key
from controller.adapters.git.faults import CloneDamaged, translated
from controller.adapters.git.locations import Scheme
from controller.adapters.git.refs import Advertised
from controller.config import GitSettings
from controller.domain.errors import Stalled, Transient

CONNECT_TIMEOUT = 10.0  # seconds
SILENCE_TIMEOUT = 30.0  # seconds without a byte; a server that still computes sends progress every 5


def configure(settings: GitSettings, home: Path) -> None:
    """libgit2's settings, which hold for the whole process.

    No configuration file but a clone's own is read: a `url.<base>.insteadOf` in somebody's ~/.gitconfig would lead
    around the check of local paths. Ownership is not validated: which folders may be read is the configuration's to
    say, repositories that people push to belong to those people, and nothing that a repository's configuration names
    is ever run here. `home`: see HostKeyTypes.
    """
    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA):
        pygit2.settings.search_path[level] = ""
    pygit2.settings.owner_validation = False
    pygit2.settings.server_connect_timeout = int(CONNECT_TIMEOUT * 1000)
    pygit2.settings.server_timeout = int(min(SILENCE_TIMEOUT, settings.fetch_timeout) * 1000)
    pygit2.option(pygit2.enums.Option.SET_HOMEDIR, str(home))


class HostKeyTypes:
    """Which of its host keys a server is asked to show.

    libssh2 asks for the kinds that `<home>/.ssh/known_hosts` has for the server, else for whatever it likes best; and
    a Secret often has only one kind. So the keys that Secrets name are put there. It is the union over all
    repositories, hence only good for asking: what is believed is decided by each one's own Secret (`Access.trust`).
    """

    def __init__(self, home: Path) -> None:
        self._file = home / ".ssh" / "known_hosts"
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._lines: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def learn(self, access: Access) -> None:
        keys = known_hosts.trusted(access.known_hosts, access.host)
        # One line that libssh2 cannot read spoils the whole file for it; no real key is that short.
        lines = frozenset(f"{access.host} {key}\n" for key in keys if len(key.blob) > 32)
        with self._lock:
            if not lines <= self._lines:
                self._lines |= lines
                draft = self._file.with_suffix(".new")
                draft.write_text("".join(sorted(self._lines)))
                draft.replace(self._file)


class Conversation:
    """With the server of one repository, on behalf of `subject` ("repository demo (https://…)")."""

    def __init__(self, clone: pygit2.Repository, access: Access, subject: str, settings: GitSettings) -> None:
        self._subject = subject
        self._access = access
        self._callbacks = _Callbacks(access, subject, settings)
        with self.errors():
            self._remote = clone.remotes.create_anonymous(access.location.url)

    def errors(self) -> Any:
        return translated(self._subject, self._access.secrets)

    def advertised(self) -> Advertised:
        """One round trip (two with HTTP authentication)."""
        with self.errors():
            heads = self._remote.list_heads(callbacks=self._callbacks, proxy=True)
        default = next((head.symref_target for head in heads if head.name == "HEAD"), None)
        return Advertised({h.name: str(h.oid) for h in heads if h.name and h.name != "HEAD"}, default)

    def transfer(self, refspecs: Iterable[str], stored: int) -> None:
        """Fetch over the same connection. `stored`: bytes that the clone has already. What the server does not
        have is passed over in silence."""
        self._callbacks.begin(stored)
        with self.errors():
            self._remote.fetch(list(refspecs), callbacks=self._callbacks, prune=FetchPrune.PRUNE, proxy=True)


class _Callbacks(pygit2.RemoteCallbacks):
    """What libgit2 asks us in the course of a conversation. What is raised here ends it."""

    def __init__(self, access: Access, subject: str, settings: GitSettings) -> None:
        super().__init__()
        self._stored = 0
        self._access = access
        self._subject = subject
        self._settings = settings
        self._deadline = time.monotonic() + settings.fetch_timeout
        self._asked = False

    def begin(self, stored: int) -> None:
        """A transfer into a clone of `stored` bytes; should it have to connect anew, credentials are asked again."""
        self._stored = stored
        self._asked = False

    def credentials(
        self, url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> Credential:
        """Asked again means refused: libgit2 itself would go on for 15 times, and an account may be locked by that."""
        answer = self._access.answer(url, username_from_url, allowed_types)
        if not isinstance(answer, pygit2.Username):
            if self._asked:
                raise Stalled(
                    "AuthenticationFailed",
                    f"{self._subject}: the server refuses the credentials. Check the Secret named by spec.credentials",
                )
            self._asked = True
        return answer

    def certificate_check(self, certificate: Any, valid: bool, host: bytes) -> bool:
        """TLS: what OpenSSL says. SSH: what the Secret's knownHosts say; without the key itself, no."""
        if self._access.location.scheme is not Scheme.SSH:
            return valid
        self._access.trust(read_host_key(certificate) if isinstance(certificate, int) else None)
        return True

    def transfer_progress(self, stats: Any) -> None:
        self._check_time()
        if self._stored + stats.received_bytes > self._settings.max_repository:
            if self._stored:
                raise CloneDamaged(f"{self._subject}: the clone has outgrown its limit, old commits included")
            raise Stalled(
                "RepositoryTooLarge",
                f"{self._subject}: it is larger than git.maxRepository allows "
                f"({self._settings.max_repository / 2**20:.0f} MiB). Raise that, or keep large files in a data box",
            )

    def sideband_progress(self, string: str) -> None:
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            limit = self._settings.fetch_timeout
            raise Transient(
                "FetchTimeout", f"{self._subject}: not done within git.fetchTimeout ({limit:g} s)"
            )


@libgit2_callback
def _certificate_check_cb(certificate: Any, valid: int, host: Any, callbacks: Any) -> int:
    """Takes the place of pygit2's own function of this name, which hands on None for the certificate: an SSH server's
    key could not be known then. Should pygit2 ever bypass this one, None arrives again, and is refused."""
    address = int(ffi.cast("uintptr_t", certificate))
    trusted = callbacks.certificate_check(address, bool(valid), ffi.string(host))
    return 0 if trusted else int(C.GIT_ECERTIFICATE)
