"""The client of registries, against an HTTP server that does what registries may do, and what they must not."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from controller.adapters.registries import LARGEST, MOST_TAGS, HttpRegistries, target_of
from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from tests.support.git_servers import make_certificate

Reply = tuple[int, Mapping[str, str], bytes]
NAME = "team/demo"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Server:
    """`answer` gets method, path with query, and headers. `seen` are the requests."""

    port: int
    answer: Callable[[str, str, Mapping[str, str]], Reply]
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    yield from _serving(None)


@pytest.fixture
def other() -> Iterator[Server]:
    """Another host, to which a registry leads."""
    yield from _serving(None)


def _serving(context: ssl.SSLContext | None) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.seen.append((self.command, self.path, self.headers))  # type: ignore[arg-type]
            status, headers, body = found.answer(self.command, self.path, self.headers)  # type: ignore[arg-type]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass  # clients that leave

    http = Quiet(("127.0.0.1", 0), Handler)
    if context:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    found = Server(http.server_address[1], lambda *asked: (404, {}, b""))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def registries(server: Server, login: tuple[str, str] | None = None, scheme: str = "") -> Any:
    secret = None
    if login:
        secret = SecretSpec("hub-cred", (("username", Secret(login[0])), ("password", Secret(login[1]))))
    return ((Registry("hub", f"{scheme}{server.host}", "hub-cred" if login else None), secret),)


def client(folder: Path = Path("/nowhere"), **options: Any) -> HttpRegistries:
    return HttpRegistries(False, folder, timeout=options.pop("timeout", 20.0), **options)


def tags(server: Server, login: tuple[str, str] | None = None, **options: Any) -> tuple[str, ...]:
    return client(**options).tags(f"{server.host}/{NAME}", registries(server, login))


def listing(*found: Any) -> Reply:
    return 200, {"Content-Type": "application/json"}, json.dumps({"name": NAME, "tags": list(found)}).encode()


def paged(all_tags: list[str]) -> Callable[[str, str, Mapping[str, str]], Reply]:
    """As registries page: `n` at once, after `last`."""

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        query = parse_qs(urlsplit(path).query)
        number, last = int(query["n"][0]), query.get("last", [""])[0]
        rest = [tag for tag in sorted(all_tags) if tag > last]
        status, found, body = listing(*rest[:number])
        more = {"Link": f'</v2/{NAME}/tags/list?last={rest[number - 1]}&n={number}>; rel="next"'}
        return status, {**found, **(more if len(rest) > number else {})}, body

    return answer


# --- tags ---------------------------------------------------------------------------------------------------------


def test_ten_thousand_tags_come_in_pages(server: Server) -> None:
    wanted = [f"build-{number:05}" for number in range(10_000)]
    server.answer = paged(wanted)
    assert sorted(tags(server)) == wanted
    assert len(server.seen) == 10


@pytest.mark.parametrize(
    "link",
    [
        "<PAGE>; rel=next",
        '<PAGE>;rel="next"',
        '<PAGE>; title="a, b; c"; rel="next"',
        "<PAGE>; type=text/plain; foo; rel=next",
        '<PAGE>; rel="last next"',
        '</elsewhere>; rel="prev", <PAGE>; rel="next"',
        '<PAGE>; REL = "Next"',
    ],
)
def test_the_next_page_is_found_however_it_is_written(server: Server, link: str) -> None:
    """A list that ends too early would make an older tag the newest."""
    page = f"/v2/{NAME}/tags/list?last=1.0"

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if "last=" in path:
            return listing("2.0")
        return 200, {"Link": link.replace("PAGE", page)}, listing("1.0")[2]

    server.answer = answer
    assert tags(server) == ("1.0", "2.0")


@pytest.mark.parametrize(
    "link", ["<PAGE>; rel=prev", "<PAGE>; rel=nextish", '<PAGE>; title="rel=next"', "PAGE; rel=next"]
)
def test_other_links_lead_nowhere(server: Server, link: str) -> None:
    page = f"/v2/{NAME}/tags/list?last=1.0"
    server.answer = lambda *asked: (200, {"Link": link.replace("PAGE", page)}, listing("1.0")[2])
    assert tags(server) == ("1.0",)


def test_what_is_no_tag_is_left_out(server: Server) -> None:
    server.answer = lambda *asked: listing(
        "1.0", "", "a/b", "x" * 129, 7, None, {"a": 1}, "-x", "ok_1", "ü", "1.0"
    )
    assert tags(server) == ("1.0", "ok_1")


def test_a_repository_without_tags(server: Server) -> None:
    server.answer = lambda *asked: (200, {}, b'{"name": "team/demo", "tags": null}')
    assert tags(server) == ()


def test_a_link_behind_a_proxy_counts_by_its_query_alone(server: Server) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if "last=" in path:
            return listing("2.0")
        status, found, body = listing("1.0")
        return (
            status,
            {**found, "Link": f'<http://10.0.0.1:1/v2/{NAME}/tags/list?last=1.0>; rel="next"'},
            body,
        )

    server.answer = answer
    assert tags(server) == ("1.0", "2.0")


MANY = "&".join(f"field{number}=1" for number in range(100))
HOSTILE_LINKS = {
    "itself": f"/v2/{NAME}/tags/list?n=1000",
    "elsewhere": "http://169.254.169.254/latest/meta-data/",
    "another repository": "/v2/secret/repo/tags/list?n=1",
    "another path": "/v2/../admin",
    "no address": "http://[::1",
    "a file": "file:///etc/passwd",
    "many fields": f"/v2/{NAME}/tags/list?{MANY}",
}


@pytest.mark.parametrize("link", HOSTILE_LINKS.values(), ids=HOSTILE_LINKS.keys())
def test_links_that_loop_or_lead_elsewhere(server: Server, link: str) -> None:
    server.answer = lambda *asked: (200, {"Link": f'<{link}>; rel="next"'}, listing("1.0")[2])
    with pytest.raises(Stalled) as caught:
        tags(server)
    assert caught.value.reason == Reason.REGISTRY_ANSWER_INVALID
    assert len(server.seen) <= 2


@pytest.mark.slow
def test_pages_without_an_end(server: Server) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        number = len(server.seen)
        return 200, {"Link": f'</v2/{NAME}/tags/list?last={number}>; rel="next"'}, listing("1.0")[2]

    server.answer = answer
    with pytest.raises(Stalled, match="does not end"):
        tags(server)


def test_more_tags_than_anybody_has(server: Server) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        number = len(server.seen)
        page = [f"{number}-{each}" for each in range(50_000)]
        return 200, {"Link": f'</v2/{NAME}/tags/list?last={number}>; rel="next"'}, listing(*page)[2]

    server.answer = answer
    with pytest.raises(Stalled, match=f"more than {MOST_TAGS} tags"):
        tags(server)


BODIES = {
    "no JSON": b"<html>",
    "nothing": b"",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "tags that are a text": b'{"tags": "latest"}',
    "no UTF-8": b'{"tags": ["\xff"]}',
    "a number too large": b'{"tags": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_malformed_answers(server: Server, body: bytes) -> None:
    server.answer = lambda *asked: (200, {}, body)
    with pytest.raises(Stalled) as caught:
        tags(server)
    assert caught.value.reason == Reason.REGISTRY_ANSWER_INVALID


def test_a_huge_answer_costs_no_more_than_its_bound(server: Server) -> None:
    server.answer = lambda *asked: (200, {}, b" " * (LARGEST + 1))
    with pytest.raises(Stalled, match="more than 4 MiB"):
        tags(server)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Stalled, Reason.REGISTRY_ANSWER_INVALID),
        (401, Stalled, Reason.REGISTRY_DENIED),
        (403, Stalled, Reason.REGISTRY_DENIED),
        (404, Stalled, Reason.IMAGE_NOT_FOUND),
        (429, Transient, Reason.REGISTRY_LIMITED),
        (500, Transient, Reason.REGISTRY_UNREACHABLE),
        (503, Transient, Reason.REGISTRY_UNREACHABLE),
        (204, Stalled, Reason.REGISTRY_ANSWER_INVALID),
    ],
)
def test_each_status_says_what_happens_next(
    server: Server, status: int, kind: type[ControllerError], reason: Reason
) -> None:
    server.answer = lambda *asked: (status, {"Retry-After": "120"}, b"")
    with pytest.raises(kind) as caught:
        tags(server)
    assert caught.value.reason == reason
    assert f"cannot ask {server.host} about {NAME}: " in caught.value.message
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after == 120.0


def test_a_registry_that_is_down() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        gone = Server(free.getsockname()[1], lambda *asked: (200, {}, b""))
    with pytest.raises(Transient) as caught:
        tags(gone)
    assert caught.value.reason == Reason.REGISTRY_UNREACHABLE


def test_a_registry_that_never_answers() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        slow = Server(silent.getsockname()[1], lambda *asked: (200, {}, b""))
        with pytest.raises(Transient, match="did not answer within") as caught:
            tags(slow, timeout=0.3)
    assert caught.value.reason == Reason.REGISTRY_UNREACHABLE


def test_what_is_no_http(server: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        odd = Server(listener.getsockname()[1], lambda *asked: (200, {}, b""))

        def speak() -> None:
            taken, _ = listener.accept()
            taken.recv(1000)
            taken.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            taken.close()

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(Transient) as caught:
            tags(odd)
        thread.join()
    assert caught.value.reason == Reason.REGISTRY_UNREACHABLE


# --- who asks -----------------------------------------------------------------------------------------------------

LOGIN = ("ivanov", "open-sesame-4711")
BASIC = f"Basic {base64.b64encode(':'.join(LOGIN).encode()).decode()}"


def protected(challenge: str, wanted: str) -> Callable[[str, str, Mapping[str, str]], Reply]:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if headers.get("Authorization") == wanted:
            return listing("1.0")
        return 401, {"WWW-Authenticate": challenge}, b""

    return answer


def test_basic_credentials_are_sent_when_they_are_asked_for(server: Server) -> None:
    server.answer = protected('Basic realm="hub"', BASIC)
    assert tags(server, LOGIN) == ("1.0",)
    assert [headers.get("Authorization") for _, _, headers in server.seen] == [None, BASIC]


@pytest.mark.parametrize("login", [None, LOGIN], ids=["anonymous", "credentials"])
def test_a_token_comes_from_the_service_that_the_registry_names(
    server: Server, other: Server, login: tuple[str, str] | None
) -> None:
    realm = f'Bearer realm="http://{other.host}/token",service="hub",scope="repository:everything:*"'
    server.answer = protected(realm, "Bearer good")
    other.answer = lambda *asked: (200, {}, b'{"token": "good"}')
    assert tags(server, login) == ("1.0",)
    ((_, path, headers),) = other.seen
    assert parse_qs(urlsplit(path).query) == {"service": ["hub"], "scope": [f"repository:{NAME}:pull"]}
    assert headers.get("Authorization") == (BASIC if login else None)


@pytest.mark.parametrize(
    "realm",
    [
        "file:///etc/passwd",
        "http://ivanov@example.org/",
        "",
        "http://",
        "gopher://example.org/",
        "http://[::1",
        "http://example.org:x/",
        "http://example.org:99999/",
        f"http://example.org/?{MANY}",
    ],
)
def test_token_services_that_are_none(server: Server, realm: str) -> None:
    server.answer = lambda *asked: (401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}, b"")
    with pytest.raises(Stalled, match="token service is not valid"):
        tags(server)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\r\\nHost: b"}'])
def test_tokens_that_are_none(server: Server, other: Server, body: bytes) -> None:
    server.answer = lambda *asked: (401, {"WWW-Authenticate": f'Bearer realm="http://{other.host}/"'}, b"")
    other.answer = lambda *asked: (200, {}, body)
    with pytest.raises(Stalled) as caught:
        tags(server)
    assert caught.value.reason == Reason.REGISTRY_ANSWER_INVALID


@pytest.mark.parametrize("status", [301, 401, 403])
def test_a_token_service_that_refuses_gets_nothing_twice(server: Server, other: Server, status: int) -> None:
    server.answer = lambda *asked: (401, {"WWW-Authenticate": f'Bearer realm="http://{other.host}/"'}, b"")
    other.answer = lambda *asked: (status, {"Location": f"http://{server.host}/stolen"}, b"")
    with pytest.raises(Stalled) as caught:
        tags(server, LOGIN)
    assert len(other.seen) == 1
    assert not any("stolen" in path for _, path, _ in server.seen)
    assert LOGIN[1] not in caught.value.message


def test_a_secret_without_a_password(server: Server) -> None:
    lacking = (
        (Registry("hub", server.host, "hub-cred"), SecretSpec("hub-cred", (("username", Secret("a")),))),
    )
    with pytest.raises(Stalled) as caught:
        client().tags(f"{server.host}/{NAME}", lacking)
    assert caught.value.reason == Reason.REGISTRY_CREDENTIALS


# --- redirects ----------------------------------------------------------------------------------------------------


def test_redirects_are_followed_without_credentials(server: Server, other: Server) -> None:
    def answer(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if "Authorization" not in headers:
            return 401, {"WWW-Authenticate": "Basic"}, b""
        return 307, {"Location": f"http://{other.host}{path}"}, b""

    server.answer, other.answer = answer, lambda *asked: listing("1.0")
    assert tags(server, LOGIN) == ("1.0",)
    ((_, _, headers),) = other.seen
    assert "Authorization" not in headers


def test_a_host_that_is_redirected_to_learns_no_credentials(server: Server, other: Server) -> None:
    server.answer = lambda method, path, headers: (307, {"Location": f"http://{other.host}{path}"}, b"")
    other.answer = lambda *asked: (401, {"WWW-Authenticate": "Basic"}, b"")
    with pytest.raises(Stalled) as caught:
        tags(server, LOGIN)
    assert caught.value.reason == Reason.REGISTRY_ANSWER_INVALID
    assert all("Authorization" not in headers for _, _, headers in (*server.seen, *other.seen))


@pytest.mark.parametrize(
    "location", ["", "file:///etc/passwd", "http://[::1", "http://a@b/", "http://a:99999/"]
)
def test_redirects_that_lead_nowhere(server: Server, location: str) -> None:
    server.answer = lambda *asked: (302, {"Location": location}, b"")
    with pytest.raises(Stalled) as caught:
        tags(server)
    assert caught.value.reason == Reason.REGISTRY_ANSWER_INVALID


def test_redirects_without_an_end(server: Server) -> None:
    server.answer = lambda method, path, headers: (302, {"Location": path}, b"")
    with pytest.raises(Stalled, match="again and again"):
        tags(server)


# --- where it may ask ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.5", "169.254.169.254", "192.168.1.1", "::1", "fd00::1", "::ffff:10.0.0.5"],
)
def test_private_addresses_need_the_operator(address: str) -> None:
    asked = HttpRegistries(False, Path("/nowhere"), resolve=lambda name: [address])
    with pytest.raises(Stalled) as caught:
        asked.tags("hub.example.org/team/demo", ())
    assert caught.value.reason == Reason.REGISTRY_ADDRESS_REFUSED


def test_a_public_registry_does_not_lead_to_private_addresses(server: Server) -> None:
    """The name is asked for once more where a redirect leads."""
    reached: list[str] = []

    def resolve(name: str) -> list[str]:
        reached.append(name)
        return ["8.8.8.8" if name == "hub.example.org" else "127.0.0.1"]

    asked = HttpRegistries(True, Path("/nowhere"), resolve=lambda name: ["127.0.0.1"])
    server.answer = lambda *_: listing("1.0")
    assert asked.tags(f"{server.host}/{NAME}", ()) == ("1.0",)  # the operator has allowed all of them
    closed = HttpRegistries(False, Path("/nowhere"), resolve=resolve)
    with pytest.raises(Stalled) as caught:
        closed.tags(f"{server.host}/{NAME}", ())
    assert caught.value.reason == Reason.REGISTRY_ADDRESS_REFUSED
    assert reached == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("name", "url", "base", "path"),
    [
        ("python", "", "https://registry-1.docker.io", "library/python"),
        ("team/demo", "", "https://registry-1.docker.io", "team/demo"),
        ("hub.example.org/a/b", "hub.example.org", "https://hub.example.org", "a/b"),
        ("hub.example.org/a/b", "http://hub.example.org/", "http://hub.example.org", "a/b"),
        ("hub.example.org:5000/a", "https://hub.example.org:5000", "https://hub.example.org:5000", "a"),
        ("localhost:5000/a", "", "http://localhost:5000", "a"),
        ("127.0.0.1:5000/a", "https://127.0.0.1:5000", "https://127.0.0.1:5000", "a"),
    ],
)
def test_where_an_image_is_asked_for(name: str, url: str, base: str, path: str) -> None:
    found = target_of(name, ((Registry("hub", url), None),) if url else ())
    assert (found.base.geturl(), found.path) == (base, path)


# --- certificates -------------------------------------------------------------------------------------------------


def test_a_private_authority_is_trusted_where_the_engine_has_it(tmp_path: Path) -> None:
    both, certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    for server in _serving(context):
        server.answer = lambda *asked: listing("1.0")
        known = registries(server, scheme="https://")
        asked = client(tmp_path / "certs.d")
        with pytest.raises(Stalled) as caught:
            asked.tags(f"{server.host}/{NAME}", known)
        assert caught.value.reason == Reason.REGISTRY_UNTRUSTED
        assert f"certs.d/{server.host}/ca.crt" in caught.value.message
        folder = tmp_path / "certs.d" / server.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(certificate.read_bytes())
        assert asked.tags(f"{server.host}/{NAME}", known) == ("1.0",)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The server's key with its certificate, and the authority alone."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def private(certificate: tuple[Path, Path]) -> Iterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[0])
    for server in _serving(context):
        server.answer = lambda *asked: listing("1.0")
        yield server


def trusting(server: Server, **authorities: Path) -> tuple[str, ...]:
    named = {server.host if name == "it" else name: file for name, file in authorities.items()}
    asked = client(authorities=named)
    return asked.tags(f"{server.host}/{NAME}", registries(server, scheme="https://"))


def test_an_authority_of_the_configuration_is_trusted_for_its_registry_alone(
    private: Server, certificate: tuple[Path, Path]
) -> None:
    assert trusting(private, it=certificate[1]) == ("1.0",)
    with pytest.raises(
        Stalled, match=r"name a file with its authority in the configuration, images\.authorities"
    ) as caught:
        trusting(private, elsewhere=certificate[1])
    assert caught.value.reason == Reason.REGISTRY_UNTRUSTED


def test_another_authority_than_the_registrys(private: Server, tmp_path: Path) -> None:
    _, other = make_certificate(tmp_path)
    with pytest.raises(
        Stalled, match=r"its authority is not in .*, which images\.authorities names for it: add it there"
    ):
        trusting(private, it=other)


@pytest.mark.parametrize(
    ("content", "wrong"), [(None, "No such file"), ("", "has no cert"), ("x" * 99, "has no cert")]
)
def test_a_file_without_an_authority(
    private: Server, tmp_path: Path, content: str | None, wrong: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Stalled, match=f"ca.pem, the authority of {private.host}, {wrong}") as caught:
        trusting(private, it=file)
    assert caught.value.reason == Reason.REGISTRY_UNTRUSTED
    assert private.seen == []


# --- what a tag points to -----------------------------------------------------------------------------------------


def pointing(
    body: bytes, kind: str, digest: str | None = None
) -> Callable[[str, str, Mapping[str, str]], Reply]:
    found = f"sha256:{hashlib.sha256(body).hexdigest()}" if digest is None else digest
    headers = {"Content-Type": kind, **({"Docker-Content-Digest": found} if found else {})}
    return lambda *asked: (200, headers, body)


def index(*platforms: str) -> bytes:
    entries = [dict(zip(("os", "architecture"), platform.split("/"), strict=True)) for platform in platforms]
    manifests = [{"digest": "sha256:" + "0" * 64, "platform": entry} for entry in entries]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


def test_an_index_has_platforms_and_its_own_digest(server: Server) -> None:
    body = index("linux/amd64", "linux/arm64", "unknown/unknown")
    server.answer = pointing(body, INDEX)
    found = client().image(f"{server.host}/{NAME}", "1.0", registries(server))
    assert found.digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert found.platforms == frozenset({"linux/amd64", "linux/arm64"})
    assert [method for method, _, _ in server.seen] == ["HEAD", "GET"]
    assert server.seen[1][1].endswith(f"/manifests/{found.digest}")


def test_a_digest_that_is_known_costs_one_head(server: Server) -> None:
    body = index("linux/amd64")
    server.answer = pointing(body, INDEX)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert client().image(f"{server.host}/{NAME}", "1.0", registries(server), digest).platforms is None
    assert [method for method, _, _ in server.seen] == ["HEAD"]


def test_without_a_header_the_digest_is_that_of_the_body(server: Server) -> None:
    body = b'{"schemaVersion": 2}'
    server.answer = pointing(body, "application/vnd.oci.image.manifest.v1+json", digest="")
    found = client().image(f"{server.host}/{NAME}", "1.0", registries(server))
    assert (found.digest, found.platforms) == (f"sha256:{hashlib.sha256(body).hexdigest()}", None)


def test_a_body_that_is_not_what_its_digest_says(server: Server) -> None:
    server.answer = pointing(b"{}", INDEX, digest=f"sha256:{'0' * 64}")
    with pytest.raises(Stalled, match="not what its digest says"):
        client().image(f"{server.host}/{NAME}", "1.0", registries(server))


def test_a_digest_that_disappears_between_two_questions(server: Server) -> None:
    """Somebody pushes the tag again, and the registry collects what it has pointed to."""
    there = pointing(b"{}", INDEX)
    server.answer = lambda method, path, headers: (
        there(method, path, headers) if method == "HEAD" else (404, {}, b"")
    )
    with pytest.raises(Stalled) as caught:
        client().image(f"{server.host}/{NAME}", "1.0", registries(server))
    assert caught.value.reason == Reason.IMAGE_NOT_FOUND
    assert [method for method, _, _ in server.seen] == ["HEAD", "GET"]


def test_a_tag_that_disappeared(server: Server) -> None:
    with pytest.raises(Stalled) as caught:
        client().image(f"{server.host}/{NAME}", "1.0", registries(server))
    assert caught.value.reason == Reason.IMAGE_NOT_FOUND
