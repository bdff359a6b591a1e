"""Asks image registries which tags they have and what a tag points to, by the API of
https://github.com/opencontainers/distribution-spec, behind the port `ImageRegistry`. Called by the follower of images.

Developers choose registries, and registries are not trusted: addresses are checked before anything connects to them,
answers are bounded in size and time, the next page of a list is one of the same list, and credentials go to the
registry and to the token service that it names, over TLS if it has TLS, and never where a redirect leads.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urljoin, urlsplit

from controller.adapters.addresses import Resolve, connected, resolve, resolved_in_time
from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.image_names import DIGEST, HUB, TAG, hub_or, split_name
from controller.domain.localizable import Localizable, joined
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import is_public, retry_after
from controller.domain.secret import Secret, scrub
from controller.fetch import ended_after, network_words, seconds_left
from controller.ports import RemoteImage

TIMEOUT: Final = 60.0  # seconds for all requests of one question
PAGE: Final = 1000  # tags that are asked for at once
MOST_TAGS: Final = 100_000
MOST_PAGES: Final = 1000
LARGEST: Final = 4 * 2**20  # bytes of an answer, as registries themselves bound manifests
MOST_REDIRECTS: Final = 5
MOST_FIELDS: Final = 20  # of the query in an address that a registry names
_LONGEST_TOKEN: Final = 64 * 2**10
_HUB_HOST: Final = "registry-1.docker.io"
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    *_INDEXES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
#: The link to the next page, perhaps among others, and with other parameters before the one that says so (RFC 8288).
_LINK = re.compile(
    r'<([^<>]{1,4000})>(?:\s*;\s*(?!rel\s*=)[a-z*]{1,40}\s*(?:=\s*(?:"[^"<>]{0,400}"|[^\s",;<>]{0,400}))?){0,9}'
    r'\s*;\s*rel\s*=\s*(?:"(?:[^"<>]{0,400}\s)?next(?:\s[^"<>]{0,400})?"|next\b)',
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\s*(bearer|basic)\b", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-z]{1,40})="([^"]{0,4000})"', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+")

Registries = tuple[tuple[Registry, SecretSpec | None], ...]
T = TypeVar("T")
Origin = tuple[str, str, int]  # scheme, host, port


@dataclass(frozen=True)
class _Answer:
    url: SplitResult
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class _Target:
    """A repository of a registry: where it is, and what it may be asked with."""

    base: SplitResult
    path: str
    shown: str  # of the registry, for people
    declared: bool  # the operator has named the registry
    login: tuple[str, Secret] | None

    @property
    def origin(self) -> Origin:
        return origin_of(self.base)


class HttpRegistries:
    """`private` also allows addresses that are not public for registries that no PlatformApp names. `certificates` has
    authorities as the engine wants them, `authorities` files with others, by host and perhaps port."""

    def __init__(
        self,
        private: bool,
        certificates: Path,
        authorities: Mapping[str, Path] = MappingProxyType({}),
        *,
        resolve: Resolve = resolve,
        timeout: float = TIMEOUT,
    ) -> None:
        self._private = private
        self._trust = _Trust(certificates, authorities)
        self._resolve = resolve
        self._timeout = timeout

    def tags(self, name: str, registries: Registries) -> tuple[str, ...]:
        return self._asked(name, registries, _tags)

    def image(self, name: str, tag: str, registries: Registries, known: str = "") -> RemoteImage:
        return self._asked(name, registries, partial(_image, tag=tag, known=known))

    def _asked(self, name: str, registries: Registries, ask: Callable[[_Session], T]) -> T:
        target = target_of(name, registries)
        session = _Session(target, self._private, self._trust, self._resolve, self._timeout)
        secrets = (target.login[1],) if target.login else ()
        try:
            return ask(session)
        except ControllerError as error:
            told = Localizable(
                "cannot ask {shown} about {path}: {message}",
                shown=target.shown,
                path=target.path,
                message=scrub(error.message, secrets),
            )
            if isinstance(error, Transient):
                raise Transient(error.reason, told, error.retry_after) from error
            raise Stalled(error.reason, told) from error


@dataclass(frozen=True)
class _Trust:
    """The authorities that are trusted: those of this host, and for each registry those that the engine and the
    configuration have for it."""

    certificates: Path
    authorities: Mapping[str, Path]

    def context(self, place: str) -> ssl.SSLContext:
        """`place` is a host, perhaps with a port. Raises Stalled `RegistryUntrusted` for a file that has none."""
        context = ssl.create_default_context()
        for file in (*sorted((self.certificates / place).glob("*.crt")), *filter(None, [self._named(place)])):
            try:
                context.load_verify_locations(file)
            except OSError as error:  # that of TLS is one, too
                wrong = (
                    Localizable("has no certificate in PEM")
                    if isinstance(error, ssl.SSLError)
                    else str(error.strerror)
                )
                told = Localizable(
                    "{file}, the authority of {place}, {wrong}: put it right, or take it out of images.authorities",
                    file=file,
                    place=place,
                    wrong=wrong,
                )
                raise Stalled(Reason.REGISTRY_UNTRUSTED, told) from None
        return context

    def advice(self, place: str) -> str:
        if file := self._named(place):
            return Localizable(
                "its authority is not in {file}, which images.authorities names for it: add it there",
                file=file,
            )
        return Localizable(
            "name a file with its authority in the configuration, images.authorities: [{place}=FILE], or put it into "
            "{folder}/{place}/ca.crt, where the engine takes it from",
            place=place,
            folder=self.certificates,
        )

    def _named(self, place: str) -> Path | None:
        return self.authorities.get(place)


def target_of(name: str, registries: Registries) -> _Target:
    """Return where the repository of an image is. Raises Stalled `RegistryCredentials`."""
    host, path = split_name(name)
    declared = secret = None
    for registry, found in registries:
        url = urlsplit(registry.url if "://" in registry.url else f"//{registry.url}")
        if hub_or(url.netloc) == host and (declared is None or (secret is None and found)):
            declared, secret = registry, found
    scheme = urlsplit(declared.url).scheme if declared and "://" in declared.url else ""
    base = urlsplit(f"//{_HUB_HOST if host == HUB else host}")
    base = base._replace(scheme=scheme or ("http" if _is_loopback(base.hostname or "") else "https"))
    login = _login(declared, secret) if declared and secret else None
    return _Target(base, path, host, declared is not None, login)


def _is_loopback(host: str) -> bool:
    """Return True for hosts that the engine asks without TLS."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", host) is not None


def _login(registry: Registry, secret: SecretSpec) -> tuple[str, Secret]:
    user, password = secret.get("username"), secret.get("password")
    if not user or not password:
        text = Localizable(
            "Secret {name} of registry {registry} needs `username` and `password`",
            name=secret.name,
            registry=registry.name,
        )
        raise Stalled(Reason.REGISTRY_CREDENTIALS, text)
    return user.reveal(), password


def origin_of(url: SplitResult) -> Origin:
    """Raises ValueError for a port that is none."""
    return url.scheme, (url.hostname or "").lower(), url.port or {"http": 80}.get(url.scheme, 443)


# --- the two questions --------------------------------------------------------------------------------------------


def _tags(session: _Session) -> tuple[str, ...]:
    """Return all tags. A registry that has more than `MOST_TAGS`, or whose pages lead nowhere, is refused."""
    list_path = f"/v2/{session.target.path}/tags/list"
    query, seen = urlencode({"n": PAGE}), set[str]()
    found: dict[str, None] = {}
    while True:
        if query in seen or len(seen) >= MOST_PAGES:
            raise _invalid(Localizable("its list of tags does not end"))
        seen.add(query)
        answer = session.ask("GET", f"{list_path}?{query}", "application/json")
        found.update(dict.fromkeys(_tags_of(answer.body)))
        if len(found) > MOST_TAGS:
            raise _invalid(
                Localizable("it has more than {most} tags for this image: remove old ones", most=MOST_TAGS)
            )
        following = _next_page(answer)
        if following is None:
            return tuple(found)
        query = following


def _tags_of(body: bytes) -> list[str]:
    """Return the tags of a page. What cannot be a tag is left out."""
    content = _json(body)
    tags = content.get("tags")
    if tags is None:  # of a repository without any
        return []
    if not isinstance(tags, list):
        raise _invalid(Localizable("its list of tags is none"))
    return [tag for tag in tags if isinstance(tag, str) and TAG.fullmatch(tag)]


def _next_page(answer: _Answer) -> str | None:
    """Return the query of the next page; None if this is the last one. Nothing else of the link counts: the same list
    is asked at the same place, wherever the registry points to. Behind a proxy it may not know its own address."""
    link = _LINK.search(", ".join(answer.headers.get_all("Link") or ())[:8192])
    if link is None:
        return None
    try:
        url = urlsplit(urljoin(answer.url.geturl(), link[1]))
        query = parse_qsl(url.query, max_num_fields=MOST_FIELDS)
    except ValueError:
        url, query = urlsplit(""), []
    if url.path != answer.url.path:
        raise _invalid(Localizable("the next page of its list of tags would be elsewhere"))
    return urlencode(query)


def _image(session: _Session, tag: str, known: str) -> RemoteImage:
    """Return what a tag points to. If that is `known`, its platforms are not looked up again: a HEAD costs nothing of
    what registries allow, a GET does."""
    where = f"/v2/{session.target.path}/manifests"
    accept = ", ".join(_MANIFESTS)
    head = session.ask("HEAD", f"{where}/{tag}", accept)
    digest = head.headers.get("Docker-Content-Digest", "").strip()
    if digest and digest == known:
        return RemoteImage(digest, None)
    named = digest if DIGEST.fullmatch(digest) else tag
    answer = session.ask("GET", f"{where}/{named}", accept)
    found = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
    if named != tag and found != named:
        raise _invalid(Localizable("what it sends for {tag} is not what its digest says", tag=tag))
    return RemoteImage(found, _platforms(answer))


def _platforms(answer: _Answer) -> frozenset[str] | None:
    """Return the platforms of an index, as `linux/amd64`; None for an image of one platform, which its configuration
    names, and for an index that names none."""
    content = _json(answer.body)
    kind = str(content.get("mediaType") or answer.headers.get("Content-Type", "")).partition(";")[0].strip()
    entries = content.get("manifests")
    if kind not in _INDEXES or not isinstance(entries, list):
        return None
    found = set()
    for entry in entries:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(platform, dict):
            found.add(f"{platform.get('os')}/{platform.get('architecture')}"[:100])
    return frozenset(found - {"unknown/unknown"}) or None


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(Localizable("its answer is not JSON")) from None
    if not isinstance(content, dict):
        raise _invalid(Localizable("its answer is not a JSON object"))
    return content


def _invalid(message: str) -> Stalled:
    return Stalled(Reason.REGISTRY_ANSWER_INVALID, message)


# --- requests -----------------------------------------------------------------------------------------------------


class _Session:
    """Some requests to one repository, within one deadline."""

    def __init__(
        self, target: _Target, private: bool, trust: _Trust, resolve: Resolve, timeout: float
    ) -> None:
        self.target = target
        self._private = private or target.declared
        self._trust = trust
        self._resolve = resolve
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._authorization = ""

    def ask(self, method: str, path: str, accept: str) -> _Answer:
        """Return a successful answer. Raises Stalled and Transient for all others."""
        url = urlsplit(self.target.base.geturl() + path)
        answer = self._followed(method, url, accept)
        if answer.status == 401 and not self._authorization:
            self._authorization = self._authorized(answer)
            answer = self._followed(method, url, accept)
        if answer.status != 200:
            raise _refusal(answer, self.target.login is not None)
        return answer

    def _followed(self, method: str, url: SplitResult, accept: str) -> _Answer:
        """Follow redirects: some registries send all requests to a host nearby. Only the first one gets credentials."""
        first = origin_of(url)
        for _ in range(MOST_REDIRECTS + 1):
            own = (
                {"Authorization": self._authorization}
                if self._authorization and origin_of(url) == first
                else {}
            )
            answer = self._request(method, url, {"Accept": accept, **own})
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            url = _redirected(url, answer.headers.get("Location", ""))
        raise _invalid(Localizable("it redirects again and again"))

    # --- who asks ----------------------------------------------------------------------------------------------

    def _authorized(self, answer: _Answer) -> str:
        """Return the header by which the registry knows who asks."""
        if origin_of(answer.url) != self.target.origin:
            raise _invalid(Localizable("a host that it redirects to wants to know who asks"))
        challenge = ", ".join(answer.headers.get_all("WWW-Authenticate") or ())[:8192]
        scheme = _SCHEME.match(challenge)
        if scheme and scheme[1].lower() == "bearer":
            return f"Bearer {self._token(dict(_PARAMETER.findall(challenge)))}"
        if scheme and self.target.login:
            return self._basic()
        raise _refusal(answer, self.target.login is not None)

    def _basic(self) -> str:
        user, password = self.target.login or ("", Secret(""))
        return f"Basic {base64.b64encode(f'{user}:{password.reveal()}'.encode()).decode()}"

    def _token(self, challenge: Mapping[str, str]) -> str:
        """Return a token for reading this repository, from the service that the registry names."""
        try:
            realm = urlsplit(challenge.get("realm", ""))
            query = parse_qsl(realm.query, max_num_fields=MOST_FIELDS)
            origin_of(realm)
        except ValueError:
            realm, query = urlsplit(""), []
        if realm.scheme not in ("http", "https") or not realm.hostname or "@" in realm.netloc:
            raise _invalid(Localizable("the address of its token service is not valid"))
        if self.target.base.scheme == "https" and realm.scheme != "https":
            raise _invalid(Localizable("its token service has no TLS"))
        asked = {"scope": f"repository:{self.target.path}:pull"}
        if service := challenge.get("service"):
            asked["service"] = service
        headers = {
            "Accept": "application/json",
            **({"Authorization": self._basic()} if self.target.login else {}),
        }
        answer = self._request(
            "GET", realm._replace(query=urlencode([*query, *asked.items()]), fragment=""), headers
        )
        if answer.status != 200:
            raise _refusal(answer, self.target.login is not None, Localizable("its token service"))
        content = _json(answer.body)
        token = content.get("token") or content.get("access_token")
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
            raise _invalid(Localizable("its token service sends no token"))
        return token

    # --- one request -------------------------------------------------------------------------------------------

    def _request(self, method: str, url: SplitResult, headers: Mapping[str, str]) -> _Answer:
        try:
            return self._requested(method, url, headers)
        except TimeoutError:
            told = Localizable(
                "{host} did not answer within {timeout} s",
                host=url.hostname,
                timeout=self._timeout,
            )
            raise Transient(Reason.REGISTRY_UNREACHABLE, told) from None
        except ssl.SSLCertVerificationError as error:
            told = Localizable(
                "the certificate of {host} is not valid: {error}",
                host=url.hostname,
                error=error.verify_message,
            )
            advice = self._trust.advice(url.netloc.lower())
            raise Stalled(
                Reason.REGISTRY_UNTRUSTED,
                Localizable("{told}; if it is your own, {advice}", told=told, advice=advice),
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            words = network_words(error) or Localizable("it did not answer with HTTP")
            raise Transient(Reason.REGISTRY_UNREACHABLE, joined((str(url.hostname), words), ": ")) from None

    def _requested(self, method: str, url: SplitResult, headers: Mapping[str, str]) -> _Answer:
        scheme, host, port = origin_of(url)
        addresses = resolved_in_time(lambda: self._resolve(host), self._deadline)
        if not self._private and not all(map(is_public, addresses)):
            raise Stalled(
                Reason.REGISTRY_ADDRESS_REFUSED,
                Localizable(
                    "the address of {host} is not public: name the registry in `registries` of the "
                    "PlatformApp, or set images.privateRegistries",
                    host=host,
                ),
            )
        with closing(connected(addresses, port, self._deadline)) as plain:
            sock = plain
            if scheme == "https":
                context = self._trust.context(url.netloc.lower())
                sock = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            with closing(sock):
                return self._exchanged(sock, method, url, headers)

    def _exchanged(self, sock: Any, method: str, url: SplitResult, headers: Mapping[str, str]) -> _Answer:
        connection = http.client.HTTPConnection(url.hostname or "", url.port or 80)
        connection.sock = sock
        connection.auto_open = 0  # otherwise it might resolve the name again
        sock.settimeout(seconds_left(self._deadline))
        with ended_after(seconds_left(self._deadline), sock):
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            sent = {"Host": url.netloc, "User-Agent": "prichal", "Connection": "close", **headers}
            connection.request(method, path, headers=sent)
            with closing(connection.getresponse()) as response:
                body = response.read(LARGEST + 1)
                if len(body) > LARGEST:
                    raise _invalid(Localizable("its answer has more than {most} MiB", most=LARGEST // 2**20))
                return _Answer(url, response.status, response.headers, body)


def _redirected(url: SplitResult, location: str) -> SplitResult:
    try:
        found = urlsplit(urljoin(url.geturl(), location))
        origin_of(found)
    except ValueError:
        found = urlsplit("")
    if found.scheme not in ("http", "https") or not found.hostname or "@" in found.netloc or not location:
        raise _invalid(Localizable("it redirects to an address that is not valid"))
    if url.scheme == "https" and found.scheme != "https":
        raise _invalid(Localizable("it redirects to an address without TLS"))
    return found._replace(fragment="")


#: The registry, in messages that say its name before.
_IT: Final = Localizable("it")


def _refusal(answer: _Answer, known: bool, who: str = _IT) -> ControllerError:
    """Return the error for an answer that is not a success."""
    status = answer.status
    wait = retry_after(answer.headers.get("Retry-After", ""), time.time())
    match status:
        case 401 | 403:
            told = (
                Localizable("{who} refuses the credentials ({status})", who=who, status=status)
                if known
                else Localizable("{who} wants credentials ({status})", who=who, status=status)
            )
            how = Localizable("check `registries` of the PlatformApp and its Secret")
            return Stalled(Reason.REGISTRY_DENIED, joined((told, how), ": "))
        case 404:
            return Stalled(
                Reason.IMAGE_NOT_FOUND,
                Localizable("{who} does not have it ({status})", who=who, status=status),
            )
        case 429:
            told = Localizable("{who} allows no more requests for now ({status})", who=who, status=status)
            return Transient(Reason.REGISTRY_LIMITED, told, wait)
        case _ if status >= 500:
            return Transient(
                Reason.REGISTRY_UNREACHABLE,
                Localizable("{who} answers {status}", who=who, status=status),
                wait,
            )
        case _:
            return _invalid(Localizable("{who} answers {status}", who=who, status=status))
