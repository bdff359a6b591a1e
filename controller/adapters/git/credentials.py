"""How we authenticate at a server, and how we recognize the right server.

Both come from the Secret that a Repository names under `spec.credentials`: `username` + `password`, or
`token`, or `sshPrivateKey` (+ `passphrase`) with `knownHosts`. Documented in docs/guide/git.md.
"""

from __future__ import annotations

import ctypes
import hashlib
from urllib.parse import urlsplit

import pygit2
from pygit2.enums import CredentialType

from controller.adapters.git import known_hosts
from controller.adapters.git.known_hosts import HostKey, HostKeyCheck, KnownHostsLine
from controller.adapters.git.locations import Location, UrlScheme
from controller.domain.apps.spec import SecretSpec
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

#: Sent with a token if the Secret has no `username`. GitHub, GitLab and Gitea check only the token.
TOKEN_USER = "git"  # noqa: S105 - no password: a name
SSH_USER = "git"
CONFIDENTIAL = ("password", "token", "sshPrivateKey", "passphrase")

Credential = pygit2.UserPass | pygit2.Username | pygit2.KeypairFromMemory


class Access:
    """The credentials for one location. `secrets` has what must not be seen in any text."""

    def __init__(self, location: Location, secret: SecretSpec | None) -> None:
        self.location = location
        self._secret = secret
        found = (secret.get(key) if secret else None for key in CONFIDENTIAL)
        self.secrets = tuple(s for s in (*found, location.password) if s)
        self.known_hosts = known_hosts.parse(self._text("knownHosts") or "")
        if location.scheme is UrlScheme.SSH:
            self._check_ssh()

    def _text(self, key: str) -> str | None:
        value = self._secret.get(key) if self._secret else None
        return value.reveal() if value else None

    def _check_ssh(self) -> None:
        if not self._text("sshPrivateKey"):
            raise Stalled(
                Reason.AUTHENTICATION_FAILED,
                Localizable(
                    "an SSH server needs a Secret with sshPrivateKey and knownHosts under spec.credentials"
                ),
            )
        if not self.known_hosts:
            raise Stalled(
                Reason.HOST_KEY_UNKNOWN,
                Localizable(
                    "the Secret has no usable knownHosts, so the server {host} cannot be verified. Get its "
                    "keys with: ssh-keyscan {arguments} and compare them with what its owner "
                    "publishes",
                    host=self.location.host,
                    arguments=self._keyscan_arguments(),
                ),
            )

    def _keyscan_arguments(self) -> str:
        port = f"-p {self.location.port} " if self.location.port else ""
        return port + self.location.host

    def answer(self, url: str, user: str | None, allowed: CredentialType) -> Credential:
        """Return what to send when the server at `url` asks. Raises Stalled `AuthenticationFailed` if there
        is nothing that it accepts, `RepositoryMoved` if the credentials are for another server.
        """
        self._check_same_server(url)
        if allowed & CredentialType.SSH_MEMORY and (key := self._text("sshPrivateKey")):
            name = user or self._text("username") or SSH_USER
            return pygit2.KeypairFromMemory(name, None, _with_newline(key), self._text("passphrase") or "")
        if allowed & CredentialType.USERNAME:
            return pygit2.Username(user or self._text("username") or SSH_USER)
        if allowed & CredentialType.USERPASS_PLAINTEXT and (pair := self._user_and_password()):
            return pygit2.UserPass(*pair)
        raise Stalled(
            Reason.AUTHENTICATION_FAILED,
            Localizable(
                "the server asks for credentials that the Repository (spec.credentials) does not give it"
            ),
        )

    def _check_same_server(self, url: str) -> None:
        """Check the host. Redirects to other hosts are switched off, but a password deserves a second check."""
        asking = urlsplit(url).hostname
        if self.location.scheme in (UrlScheme.HTTP, UrlScheme.HTTPS) and asking != self.location.host:
            raise Stalled(
                Reason.REPOSITORY_MOVED,
                Localizable(
                    "{host} redirects to {asking}, which gets no credentials",
                    host=self.location.host,
                    asking=asking,
                ),
            )

    def _user_and_password(self) -> tuple[str, str] | None:
        if token := self._text("token"):
            return self._text("username") or TOKEN_USER, token
        if password := self._text("password"):
            return self._text("username") or self.location.user or TOKEN_USER, password
        if self.location.password:
            return self.location.user or TOKEN_USER, self.location.password.reveal()
        return None

    @property
    def host(self) -> str:
        """The name of the server in known_hosts."""
        return known_hosts.host_name(self.location.host, self.location.port)

    def trust(self, key: HostKey | None) -> None:
        """Raise Stalled unless `key` is one of the server's keys in the Secret."""
        name = self.host
        if key is None:
            raise Stalled(
                Reason.HOST_KEY_UNKNOWN, Localizable("{name} showed a host key of an unknown kind", name=name)
            )
        match known_hosts.judge(self.known_hosts, name, key):
            case HostKeyCheck.KNOWN:
                return
            case HostKeyCheck.REVOKED:
                raise Stalled(
                    Reason.HOST_KEY_REVOKED,
                    Localizable(
                        "{name} shows the host key {fingerprint}, revoked by knownHosts",
                        name=name,
                        fingerprint=key.fingerprint,
                    ),
                )
            case HostKeyCheck.MISMATCH:
                raise Stalled(
                    Reason.HOST_KEY_MISMATCH,
                    Localizable(
                        "{name} shows the {type} host key {fingerprint}, but knownHosts has another one for it. "
                        "Either the server got new keys or someone is in between: ask its owner before changing "
                        "knownHosts",
                        name=name,
                        type=key.type,
                        fingerprint=key.fingerprint,
                    ),
                )
            case HostKeyCheck.UNKNOWN:
                line = KnownHostsLine(name, key)
                raise Stalled(
                    Reason.HOST_KEY_UNKNOWN,
                    Localizable(
                        "{name} shows the {type} host key {fingerprint}, which knownHosts does not have. If its "
                        "owner confirms that fingerprint, add the line: {line}",
                        name=name,
                        type=key.type,
                        fingerprint=key.fingerprint,
                        line=line,
                    ),
                )


def _with_newline(key: str) -> str:
    """Return the key with a newline at its end, which editors and YAML's `>-` strip, and OpenSSL needs."""
    return key if key.endswith("\n") else key + "\n"


class _HostKeyStruct(ctypes.Structure):
    """`git_cert_hostkey` of libgit2's public header git2/cert.h (1.1 and later)."""

    _fields_ = [
        ("cert_type", ctypes.c_int),
        ("available", ctypes.c_int),
        ("md5", ctypes.c_ubyte * 16),
        ("sha1", ctypes.c_ubyte * 20),
        ("sha256", ctypes.c_ubyte * 32),
        ("raw_type", ctypes.c_int),
        ("key", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
    ]


RAW_KEY_AVAILABLE = 1 << 3  # GIT_CERT_SSH_RAW


def read_host_key(address: int) -> HostKey | None:
    """Return the key in the `git_cert_hostkey` at `address`, or None. Its digest must match, so that a
    changed layout of the structure cannot make us trust garbage.
    """
    struct = _HostKeyStruct.from_address(address)
    if not struct.available & RAW_KEY_AVAILABLE or not struct.key:
        return None
    key = HostKey(ctypes.string_at(struct.key, struct.length))
    return key if hashlib.sha256(key.blob).digest() == bytes(struct.sha256) else None
