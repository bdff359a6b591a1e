"""What reads the words of strangers, each as a function of bytes that must raise nothing and keep what it promises.

`make fuzz` feeds them what covers ever more of their code (tests/fuzz/fuzz.py), `make test` a little of that
(tests/unit/test_fuzz_targets.py). Each begins with the inputs in tests/fuzz/corpus/<name>/, where those are kept, too,
that once did harm.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

from controller.adapters.dockerignore import rules_for
from controller.config import Settings, WebSettings
from controller.domain.apps.branch_previews import is_branch_name
from controller.domain.apps.smoke import SmokeAnswer, SmokeTestInvalid, case_of, verdict
from controller.domain.apps.spec import HookProvider, PlatformAppSpec, SmokeTest
from controller.domain.errors import Stalled
from controller.domain.git_http import PREFIX, read_exchange, write_exchange
from controller.domain.localizable import as_document, from_document
from controller.domain.names import AppName, RepositoryName, is_dns_label
from controller.domain.people.roles import Principal, administrator
from controller.domain.secret import Secret
from controller.domain.storage.links import LinkInvalid, ObjectLink, link_key, parse, read_path
from controller.domain.storage.sigv4 import SignatureInvalid, read_signature
from controller.domain.text import Shown
from controller.domain.traces import context_of_headers, context_of_text, text_of
from controller.manifests.build import examine
from controller.manifests.platform import examine_platform
from controller.manifests.reader import read
from controller.manifests.schema import check
from controller.ports import SourceFile
from controller.serving import docstring, http1, jsontext
from controller.serving.chat import ChatReader
from controller.serving.datatypes import Datatype
from controller.serving.oip import TensorCall
from controller.serving.problems import ServingProblem as ServingProblem
from controller.serving.signature import Signature, Variable
from controller.serving.tensors import BinaryTensor
from controller.serving.validate import compile_check
from controller.sops import SopsError, open_file
from controller.web.access_log import PIECE, AccessEntry, as_json, combined
from controller.web.api.platform.signatures import (
    concerns,
    delivery_id,
    is_genuine,
    own_push,
    pull_of,
    refs_of,
)
from controller.web.auth.admin import ClientInfo
from controller.web.auth.authenticate import decode_basic
from controller.web.auth.call_passes import CallPass, CallPasses
from controller.web.auth.oidc import read_header
from controller.web.auth.page_tokens import HEADER as PAGE_HEADER
from controller.web.auth.page_tokens import PageToken
from controller.web.auth.people import Callers
from controller.web.auth.sign_in import local_path
from controller.web.gateway.frames import FrameTracker
from controller.web.gateway.headers import lines_for, response_headers, split
from controller.web.gateway.hosts import HostNames, HostRedirect
from controller.web.gateway.rewrite import REWRITTEN, PublicSite, is_below
from controller.web.gateway.router import ForwardCall, PublishedApi, Router, find_route
from controller.web.git.cgi import CgiInvalid, split_header
from controller.web.git.requests import GunzippedBody, PushCommands, read_git_target
from controller.web.objects.checksums import Malformed, Mismatch
from controller.web.objects.chunks import ChunkedReader, ChunkFraming
from controller.web.objects.s3 import (
    S3Error,
    canonical_query,
    read_deletion,
    read_request,
    read_target,
    rebuilt_completion,
)
from controller.web.problems import HttpProblem, RequestRefused
from tests.fuzz import services
from tests.support.gateway import make_api, make_route
from tests.support.sops_files import recorded_keys
from tests.support.specs import make

Target = Callable[[bytes], None]

SOPS_KEYS = recorded_keys()
SETTINGS = Settings()
SECRET = "a-secret-that-nobody-guesses"
TABLE = Router.build(
    1, [make_route(make_api("image"), app=AppName("demo"), any_path=True, upstreams=("10.0.0.2:8002",))]
)
TENSORS = Signature(
    tuple(Variable(kind.value, (kind,), True, "") for kind in Datatype if kind is not Datatype.FILE),
    (),
    "",
    "",
)
_CHAT_INPUTS = (
    Variable("messages", (Datatype.DICT,), False, ""),
    Variable("temperature", (Datatype.FP32, Datatype.INT32), True, ""),
    Variable("max_tokens", (Datatype.INT32,), True, ""),
    Variable("stop", (Datatype.STR,), True, ""),
)
_CHAT = Signature(_CHAT_INPUTS, (Variable("content", (Datatype.STR,), False, ""),), "", "")
_CHATS_CHECK = compile_check(_CHAT)
_CHATS = ChatReader("net", _CHAT, _CHATS_CHECK)
SITE = PublicSite(b"/demo/image", b"/a/b?c", b"ml.example.org", ("10.0.0.2:8002",), "demo.classify")
HOSTS = HostNames(b"apps.example.org")
OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def http1_head(data: bytes) -> None:
    """The serving library's parser: what it takes has one reading."""
    with suppress(ServingProblem):
        request = http1.parse_head(data)
        assert request.path.startswith("/") or request.method == "OPTIONS"
        assert request.length >= 0
        assert not (request.chunked and b"content-length" in request.headers)


def http1_body(data: bytes) -> None:
    with suppress(ServingProblem):
        assert len(http1.decoded(data, b"gzip", 100_000)) <= 100_000


def json_text(data: bytes) -> None:
    with suppress(ValueError, ServingProblem):
        jsontext.encode(jsontext.read(data.decode("utf-8", "surrogateescape")))


def chats(data: bytes) -> None:
    """A chat of OpenAI's API is refused with an error of its own, or the function gets what it describes."""
    with suppress(ValueError):
        body = jsontext.read(data.decode("utf-8", "surrogateescape"))
        try:
            call = _CHATS.read(body).call
        except ServingProblem as problem:
            assert json.loads(problem.body("r", "/v1/chat/completions"))["error"]["message"]
        else:
            assert not _CHATS_CHECK(call)


def smoke_tests(data: bytes) -> None:
    """What a container answers to a smoke test: the verdict is short, whatever it is."""
    expected, _, found = data.partition(b"\n")
    with suppress(SmokeTestInvalid):
        case = case_of(SmokeTest("/predict", "in.json", "out.json", False, 0.1), b"{}", expected)
        assert len(verdict(case, SmokeAnswer(200, found))) < 1000
        assert not verdict(case, SmokeAnswer(200, expected))


def tensors(data: bytes) -> None:
    """What is taken has as many elements as its shape says, whatever lengths the bytes claim."""
    length, _, body = data.partition(b" ")
    request = http1.HttpRequest(
        "POST", "/v2/models/net/infer", {b"inference-header-content-length": length}, False
    )
    request.body = body
    call = TensorCall("net", {variable.name: variable for variable in TENSORS.inputs})
    with suppress(ServingProblem):
        read = call.read(request)
        if not compile_check(TENSORS)(read):
            for item in read["inputs"]:
                given = item["data"].elements() if type(item["data"]) is BinaryTensor else item["data"]
                assert len(given if isinstance(given, list) else [given]) == math.prod(item.get("shape", [1]))


def manifests(data: bytes) -> None:
    file = SourceFile("a.yaml", data)
    for document in read((file,)).documents:
        check(document)
    app = make(PlatformAppSpec, AppName("demo"), RepositoryName("demo"))
    examine((file,), app, False, SETTINGS.limits)


def platform(data: bytes) -> None:
    def none(path: str) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", path)

    spec, problems = examine_platform((SourceFile("a.yaml", data),), SETTINGS, none)
    assert data.strip(b"\0 \t\r\n") or problems
    assert all(problem.message for problem in problems)
    assert spec is not None


def encrypted_files(data: bytes) -> None:
    """Any file is read or refused, and a refusal quotes nothing that was decrypted."""
    for name in ("a.env", "a.json", "a.yaml", "a.bin"):
        for keys in (None, SOPS_KEYS):
            with suppress(SopsError):
                assert open_file(name, data, keys).text is not None


def docstrings(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    docstring.parse(text)
    docstring.remarks(text)
    with suppress(SyntaxError):
        docstring.find(text, "predict")


def dockerignore(data: bytes) -> None:
    with suppress(Stalled):
        rules = rules_for(lambda name: data, "Dockerfile").sparing("Dockerfile", ".dockerignore")
        for path in ("Dockerfile", "a", "a/b.c", "a/b/c/d", ".git/config", "x" * 200):
            rules.judge(path, ())
            rules.leaves_out(path)
            rules.enters(path)


def git_exchange(data: bytes) -> None:
    """What the Git service takes from the web process names a repository here and a person, and nothing else."""
    with suppress(ValueError):
        found = read_exchange(data)
        assert is_dns_label(found.repository)
        assert read_exchange(write_exchange(found)[PREFIX.size :]) == found


def git_target(data: bytes) -> None:
    """A path that Git gets is one of three, in one spelling."""
    method, _, target = data.partition(b" ")
    path, _, query = target.partition(b"?")
    with suppress(RequestRefused):
        found = read_git_target(method.decode("latin-1"), path, query)
        service = found.service.encode()
        last = b"info/refs?service=" + service if found.advertises else service
        assert target.removesuffix(b"?") == b"/-/git/%b.git/%b" % (found.repository.encode(), last)


def cgi_header(data: bytes) -> None:
    with suppress(CgiInvalid):
        found = split_header(data)
        if found is not None:
            assert 100 <= found[0].status <= 599
            assert data.endswith(found[1])


def push_commands(data: bytes) -> None:
    """The pieces in which a push arrives do not matter."""
    told = []
    for size in (1, 7, len(data) or 1):
        commands = PushCommands()
        with suppress(RequestRefused):
            for at in range(0, len(data), size):
                commands.feed(data[at : at + size])
        told.append(commands.number)
    assert len(set(told)) == 1


def gunzipped(data: bytes) -> None:
    decoder = GunzippedBody(100_000)
    with suppress(RequestRefused):
        assert sum(map(len, decoder.pieces(data))) <= 100_000
        decoder.finish()


def webhooks(data: bytes) -> None:
    """Nothing that is sent without the secret counts as genuine."""
    head, _, body = data.partition(b"\n\n")
    lines = (line.partition(":") for line in head.decode("latin-1").split("\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    for provider in HookProvider:
        for secret in (SECRET, "whsec_" + "QUFB" * 8, "whsec_%"):
            assert not is_genuine(provider, secret, headers, body, 1.7e9)
        identity = delivery_id(provider, headers)
        assert re.fullmatch(r"[A-Za-z0-9_.:-]{0,128}", identity)
    with suppress(ValueError, RequestRefused):
        refs = refs_of(body)
        for wanted in ("branch:main", "tag:v1", "semver:>=1", "commit:1"):
            concerns(refs, wanted)
        told, named = own_push(body)
        assert named == refs
        assert re.fullmatch("([0-9a-f]{40})?", told.after)
        event = pull_of(body)
        assert event is None or is_branch_name(event.pull.branch)


def traces(data: bytes) -> None:
    """What is passed on of a caller's context stays in its lines, and is read again as the same."""
    parent, _, state = data.replace(b"\r", b"").partition(b"\n")
    headers = [(b"traceparent", parent), *((b"tracestate", each) for each in state.split(b"\n"))]
    context = context_of_headers(headers)
    if context is not None:
        assert context.lines.count(b"\n") == context.lines.count(b"\r\n") == (2 if context.state else 1)
        assert len(context.lines) < 700
        assert context_of_text(text_of(context)) == context


def messages(data: bytes) -> None:
    """A message that others have stored costs no more than what it says."""
    with suppress(ValueError, RecursionError):
        found = from_document(json.loads(data), 1000)
        assert len(found) <= len(data) + 3000
        with suppress(ValueError):
            assert from_document(as_document(found), 10_000) == found


def frames(data: bytes) -> None:
    """The pieces in which frames come do not change how they are counted."""
    whole, pieces = FrameTracker(), FrameTracker()
    whole.feed(data)
    number = 0
    for start in range(0, len(data), 3):
        pieces.feed(data[start : start + 3])
        number += pieces.frames
    assert (whole.closed, whole.between) == (pieces.closed, pieces.between)


def access_log(data: bytes) -> None:
    """A request is one line, whatever it says, without what stands in a query."""
    text = data.decode("utf-8", "surrogateescape")
    path = f"/{text}".partition("?")[0]
    entry = AccessEntry(
        0.0,
        0.1,
        "192.0.2.1",
        text,
        "GET",
        f"{path}?5ecret",
        "HTTP/1.1",
        200,
        1,
        f"{path}?5ecret",
        text,
        text,
        text,
    )
    for line in (combined(entry), as_json(entry)):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < PIECE
        assert "5ecret" in text or "5ecret" not in line


def paths(data: bytes) -> None:
    """What reaches a component cannot be read in two ways, and no host serves what is not its own."""
    decision = find_route(TABLE, "GET", data)
    if isinstance(decision, ForwardCall):
        assert data.startswith(b"/demo/image")
        assert not re.search(rb"/\.{1,2}(/|$)|\\|//|%2[fFeE]|%5[cC]|%00", decision.path)
    host, _, path = data.partition(b"/")
    judged = HOSTS.judge(host, b"/" + path, find_route(TABLE, "GET", b"/" + path))
    if isinstance(judged, HostRedirect):
        assert re.fullmatch(rb"demo\.apps\.example\.org(:\d{1,5})?", judged.authority)


def fields(data: bytes) -> None:
    """No field of a caller or a component breaks out of its line; what is a component's own stays below its path."""
    pairs = [
        (name.strip(), value.strip())
        for name, _, value in (line.partition(b":") for line in data.split(b"\n"))
    ]
    pairs = [
        (name, value.replace(b"\r", b"")) for name, value in pairs if re.fullmatch(rb"[A-Za-z0-9_-]+", name)
    ]
    _, lines = split([(name.lower(), value) for name, value in pairs])
    sent = lines_for(SITE.prefix, lines)
    assert sent.count(b"\r\n") <= len(pairs)
    for name, value in response_headers(pairs, b"id", SITE.rewrite):
        assert b"\n" not in value
        if name.lower() == b"location" and value.startswith(b"/") and not re.match(rb"/[/\\]", value):
            assert is_below(value, SITE.prefix), value
        if name.lower() == b"set-cookie":
            names = [part.partition(b"=")[0].strip().lower() for part in value.split(b";")[1:]]
            assert b"domain" not in names, value


def rewritten(data: bytes) -> None:
    for name in REWRITTEN:
        SITE.rewrite(name, data.replace(b"\n", b"").replace(b"\r", b""))


def credentials(data: bytes) -> None:
    decode_basic(data)
    read_header(data)


def terminal(data: bytes) -> None:
    half = len(data) // 2
    text = Shown()
    shown = text.take(data[:half]) + text.take(data[half:]) + text.take(b"", last=True)
    assert not OBEYED.search(shown)


LINK_KEY = link_key(Secret(SECRET))
LINK = ObjectLink("PUT", "prichal.demo.data", "users/ann/file_groups/g/f 1", 1_700_000_000, 900, 5)


def links(data: bytes) -> None:
    """Nobody makes a link but who has the key, and no other spelling of one leads to another object."""
    text = data.decode("latin-1")
    with suppress(LinkInvalid):
        read_path(text.partition("?")[0])
    changed = LINK.url("", LINK_KEY)
    at = len(text) % len(changed)
    for target in (text, changed[:at] + text, changed[:at] + text + changed[at + len(text) :]):
        with suppress(LinkInvalid):
            assert parse("PUT", target, LINK_KEY, 1_700_000_001.0) == LINK


def objects(data: bytes) -> None:
    """What a container asks of S3 stays in the bucket that it names, however it is spelled."""
    head, _, body = data.partition(b"\n\n")
    line, *rest = head.decode("latin-1").split("\n")
    method, _, target = line.partition(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)}
    with suppress(S3Error):
        bucket, key, query = read_target(target)
        ask = read_request(method, bucket, key, query, headers)
        for name in (ask.key, (ask.source or ("", "x"))[1], ask.query.get("prefix", "")):
            assert not {".", ".."} & {segment.strip() for segment in name.split("/")}
            assert "\\" not in name
        assert re.fullmatch(r"[A-Za-z0-9._~%&=-]*", canonical_query(ask.query))
        assert not [name for name in ask.headers if "snowball" in name or "minio" in name]
    with suppress(SignatureInvalid):
        read_signature(headers, {})
    for rebuilt in (read_deletion, rebuilt_completion):
        with suppress(S3Error):
            rebuilt(body)


def chunks(data: bytes) -> None:
    """A framed body is no longer than it says."""

    async def taken() -> int:
        left = [data[start : start + 9] for start in range(0, len(data), 9)]

        async def piece() -> bytes:
            return left.pop(0) if left else b""

        size = 0
        trailer = frozenset({"x-amz-checksum-crc32"}) if data[:1] == b"5" else frozenset[str]()
        async for part in ChunkedReader(piece, 5, None, trailer).pieces():
            size += len(part)
        return size

    with suppress(ChunkFraming, Malformed, Mismatch):
        assert asyncio.run(taken()) == 5


class OneSession:
    """Where people are: one of them has a session, whose id is known to all, and whose key to nobody."""

    def session_key(self, id: str) -> str:
        return SECRET if id == SESSION else ""

    def session_by_id(self, id: str, *_: object, **__: object) -> Principal:
        assert id == SESSION
        return administrator("session")

    def nobody(self, *_: object) -> None: ...

    session = by_token = nobody


SESSION = "0123456789ab"
PAGE_TOKEN = PageToken(SESSION, "/-/apps/demo", "", 2_000_000_000).signed(SECRET)
CALL_PASS = CallPass(SESSION, "demo/image", 2_000_000_000).signed(SECRET)
WEB = WebSettings(admin_token=Secret(f"{SECRET}-of-the-admin"))
PEOPLE: Any = OneSession()
CALLERS = Callers(PEOPLE, WEB, lambda: 1.7e9)
PASSES = CallPasses(PEOPLE, WEB, lambda: 1.7e9)
API = PublishedApi(make_api("image"), b"/demo/image", b"")


def clients(data: bytes) -> None:
    """Whatever a request says, it is somebody's only with their credential, as it was made; and no sign-in leads to
    another host."""
    text = data.decode("latin-1")
    lines = (line.partition(":") for line in text.split("\n"))
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    sent = headers.get(PAGE_HEADER, "")
    at = len(sent) % len(PAGE_TOKEN)
    for token in (sent, PAGE_TOKEN[:at] + sent, PAGE_TOKEN[:at] + sent + PAGE_TOKEN[at + len(sent) :]):
        client = ClientInfo("GET", "192.0.2.1", {**headers, PAGE_HEADER: token}, "http", "/-/apps/demo")
        assert CALLERS.identify(client) is None or token == PAGE_TOKEN
        assert CALLERS.by_form(replace(client, method="POST"), token) is None
    for given in (text, CALL_PASS[:at] + text, CALL_PASS[:at] + text + CALL_PASS[at + len(text) :]):
        found = PASSES.admit(API, given.encode("latin-1"), b"null")
        assert isinstance(found, HttpProblem) or given == CALL_PASS
    client = ClientInfo("GET", "192.0.2.1", headers)
    assert CALLERS.identify(client) is None
    assert re.fullmatch(r"|https?://[A-Za-z0-9.:\[\]-]+", CALLERS.url(client))
    place = urljoin("https://ml.example.org/-/login", local_path(text))
    assert place.startswith("https://ml.example.org/-/")
    assert not re.search(r"[\x00-\x20\\\x7f-\uffff]", place)


TARGETS: dict[str, Target] = {
    "links": links,
    "objects": objects,
    "chunks": chunks,
    "http1-head": http1_head,
    "http1-body": http1_body,
    "json": json_text,
    "chats": chats,
    "smoke-tests": smoke_tests,
    "tensors": tensors,
    "manifests": manifests,
    "platform": platform,
    "encrypted-files": encrypted_files,
    "docstrings": docstrings,
    "dockerignore": dockerignore,
    "git-exchange": git_exchange,
    "git-target": git_target,
    "cgi-header": cgi_header,
    "push-commands": push_commands,
    "gunzipped": gunzipped,
    "webhooks": webhooks,
    "traces": traces,
    "messages": messages,
    "frames": frames,
    "access-log": access_log,
    "paths": paths,
    "fields": fields,
    "rewritten": rewritten,
    "credentials": credentials,
    "terminal": terminal,
    "clients": clients,
    "build-session": services.build_session,
    "build-progress": services.build_progress,
    "job-logs": services.job_logs,
    "registry-answers": services.registry_answers,
    "backup-archives": services.backup_archives,
    "tag-patterns": services.tag_patterns,
}
