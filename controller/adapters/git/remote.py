"""One session with a Git server: gets its refs, and objects into a clone, within limits.

Limits protect against servers that hang or send without end: a deadline for the whole session, a shorter one
for silence, and a number of bytes.
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

from controller.adapters.git import known_hosts, tree
from controller.adapters.git.credentials import Access, Credential, read_host_key
from controller.adapters.git.faults import CloneDamaged, translated
from controller.adapters.git.locations import UrlScheme
from controller.adapters.git.refs import Advertised
from controller.adapters.git.writing import moved, written
from controller.config import GitSettings
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import scrub
from controller.domain.text import excerpt
from controller.ports import CommitDraft

OUTGOING = "refs/prichal/outgoing"  # a commit that is pushed
#: What servers say if somebody has pushed meanwhile.
_MOVED = ("fetch first", "fast-forward", "stale", "lock", "failed to update ref")
CONNECT_TIMEOUT = 10.0  # seconds
SILENCE_TIMEOUT = 30.0  # seconds without a byte; a server that still computes sends progress every 5
#: Bounds the memory in which libgit2 packs a repository of this host: it keeps all that it has compressed otherwise.
#: Large files are not compared with each other, which takes a second for three megabytes and finds nothing in models
#: and pictures.
PACKING = "[core]\n\tbigFileThreshold = 1m\n[pack]\n\tdeltaCacheSize = 1m\n\twindowMemory = 32m\n"


def configure(settings: GitSettings, home: Path) -> None:
    """Set libgit2's settings, which hold for the whole process.

    Beside a clone's own configuration only ours in `home` is read: a `url.<base>.insteadOf` in a user's
    ~/.gitconfig would circumvent the check of local paths. Ownership is not validated: the configuration
    decides which folders may be read, repositories for pushes belong to the people who push, and nothing that
    a repository's configuration names is ever run. `home` has what HostKeyTypes says, too.
    """
    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA):
        pygit2.settings.search_path[level] = ""
    (home / ".gitconfig").write_text(PACKING)
    pygit2.settings.search_path[ConfigLevel.GLOBAL] = str(home)
    pygit2.settings.owner_validation = False
    pygit2.settings.server_connect_timeout = int(CONNECT_TIMEOUT * 1000)
    pygit2.settings.server_timeout = int(min(SILENCE_TIMEOUT, settings.fetch_timeout) * 1000)
    pygit2.option(pygit2.enums.Option.SET_HOMEDIR, str(home))


class HostKeyTypes:
    """The types of host keys that a server is asked for.

    libssh2 asks for the kinds that `<home>/.ssh/known_hosts` has for the server, otherwise for those it
    prefers; and a Secret often has only one kind. So the keys of Secrets are written there. It is the union
    over all repositories, hence only used for asking: each repository's own Secret decides what is trusted
    (`Access.trust`).
    """

    def __init__(self, home: Path) -> None:
        self._file = home / ".ssh" / "known_hosts"
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._lines: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def add(self, access: Access) -> None:
        keys = known_hosts.trusted(access.known_hosts, access.host)
        # One line that libssh2 cannot read makes the whole file useless; no real key is that short.
        lines = frozenset(f"{access.host} {key}\n" for key in keys if len(key.blob) > 32)
        with self._lock:
            if not lines <= self._lines:
                self._lines |= lines
                draft = self._file.with_suffix(".new")
                draft.write_text("".join(sorted(self._lines)))
                draft.replace(self._file)


class RemoteSession:
    """A session with the server of one repository, for `subject` ("repository demo (https://…)")."""

    def __init__(self, clone: pygit2.Repository, access: Access, subject: str, settings: GitSettings) -> None:
        self._clone = clone
        self._subject = subject
        self._access = access
        self._callbacks = _Callbacks(access, subject, settings)
        with self.errors():
            self._remote = clone.remotes.create_anonymous(access.location.url)

    @property
    def subject(self) -> str:
        return self._subject

    def errors(self) -> Any:
        return translated(self._subject, self._access.secrets)

    def advertised(self) -> Advertised:
        """Return the refs, by one round trip (two with HTTP authentication)."""
        with self.errors():
            heads = self._remote.list_heads(callbacks=self._callbacks, proxy=True)
        default = next((head.symref_target for head in heads if head.name == "HEAD"), None)
        return Advertised({h.name: str(h.oid) for h in heads if h.name and h.name != "HEAD"}, default)

    def transfer(self, refspecs: Iterable[str], stored: int) -> None:
        """Fetch over the same connection. `stored` has the bytes that are already in the clone. What the
        server does not have is skipped silently.
        """
        self._callbacks.begin(stored)
        with self.errors():
            self._remote.fetch(list(refspecs), callbacks=self._callbacks, prune=FetchPrune.PRUNE, proxy=True)

    def find_damage(self, commit: str, largest: int, known: tree.Damage | None) -> tree.Damage | None:
        """Return an object of the commit that the server itself cannot read; nobody can look from here."""
        return None

    def commit(self, branch: str, parent: str, draft: CommitDraft) -> str:
        """Write a commit into the clone and push it, without force: the server refuses it if the branch has moved."""
        with self.errors():
            commit = written(self._clone, parent, draft, None)
            self._clone.references.create(OUTGOING, pygit2.Oid(hex=commit), force=True)
            try:
                self._remote.push([f"{OUTGOING}:{branch}"], callbacks=self._callbacks, proxy=True)
            except pygit2.GitError as error:
                if "fastforward" in str(error) or "not present locally" in str(error):
                    raise moved(branch) from error
                raise
            finally:
                self._clone.references.delete(OUTGOING)
        if refused := self._callbacks.refused:
            if any(word in refused.lower() for word in _MOVED):
                raise moved(branch)
            told = Localizable(
                "{subject}: the server refuses the commit to {branch}: {refused}",
                subject=self._subject,
                branch=branch,
                refused=refused,
            )
            raise Stalled(Reason.IMAGE_WRITE_FAILED, scrub(excerpt(told, 500), self._access.secrets))
        return commit


class _Callbacks(pygit2.RemoteCallbacks):
    """libgit2's callbacks during a session. Exceptions raised here end it."""

    def __init__(self, access: Access, subject: str, settings: GitSettings) -> None:
        super().__init__()
        self._stored = 0
        self._access = access
        self._subject = subject
        self._settings = settings
        self._deadline = time.monotonic() + settings.fetch_timeout
        self._asked = False
        self.refused = ""  # why the server does not take what was pushed

    def push_update_reference(self, refname: str, message: str | None) -> None:
        if message is not None:
            self.refused = message or Localizable("it does not say why")

    def begin(self, stored: int) -> None:
        """Begin a transfer into a clone of `stored` bytes; if it has to reconnect, credentials are requested
        again.
        """
        self._stored = stored
        self._asked = False

    def credentials(
        self, url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> Credential:
        """Return the credentials. A second request means that they were refused: libgit2 itself would try 15
        times, which may lock an account.
        """
        answer = self._access.answer(url, username_from_url, allowed_types)
        if not isinstance(answer, pygit2.Username):
            if self._asked:
                raise Stalled(
                    Reason.AUTHENTICATION_FAILED,
                    Localizable(
                        "{subject}: the server refuses the credentials. Check the Secret named by "
                        "spec.credentials",
                        subject=self._subject,
                    ),
                )
            self._asked = True
        return answer

    def certificate_check(self, certificate: Any, valid: bool, host: bytes) -> bool:
        """Check the server: with TLS as OpenSSL does, with SSH by the Secret's knownHosts; without a key,
        refuse.
        """
        if self._access.location.scheme is not UrlScheme.SSH:
            return valid
        self._access.trust(read_host_key(certificate) if isinstance(certificate, int) else None)
        return True

    def transfer_progress(self, stats: Any) -> None:
        self._check_time()
        if self._stored + stats.received_bytes > self._settings.max_repository:
            if self._stored:
                raise CloneDamaged(
                    Localizable(
                        "{subject}: the clone, with its old commits, exceeds its limit", subject=self._subject
                    )
                )
            raise Stalled(
                Reason.REPOSITORY_TOO_LARGE,
                Localizable(
                    "{subject}: it is larger than git.maxRepository allows ({most} MiB). Raise "
                    "that, or keep large files in a data box",
                    subject=self._subject,
                    most=round(self._settings.max_repository / 2**20),
                ),
            )

    def sideband_progress(self, string: str) -> None:
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            limit = self._settings.fetch_timeout
            raise Transient(
                Reason.FETCH_TIMEOUT,
                Localizable(
                    "{subject}: not done within git.fetchTimeout ({limit} s)",
                    subject=self._subject,
                    limit=limit,
                ),
            )


@libgit2_callback
def _certificate_check_cb(certificate: Any, valid: int, host: Any, callbacks: Any) -> int:
    """Replaces pygit2's function of this name, which passes None for the certificate, so that an SSH server's
    key would be unknown. If pygit2 ever bypasses this one, None arrives again, and is refused.
    """
    address = int(ffi.cast("uintptr_t", certificate))
    trusted = callbacks.certificate_check(address, bool(valid), ffi.string(host))
    return 0 if trusted else int(C.GIT_ECERTIFICATE)
