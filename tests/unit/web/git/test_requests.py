"""Three requests are Git's; every other spelling is refused. Bodies of pushes are read as Git reads them."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.git_http import GitService
from controller.web.git import requests
from controller.web.git.requests import GitTarget, GunzippedBody, PushCommands, read_git_target
from controller.web.problems import ProblemKind, RequestRefused

UPLOAD, RECEIVE = GitService.UPLOAD_PACK, GitService.RECEIVE_PACK
PACKED, PACKED_MANY = gzip.compress(b"x", mtime=0), gzip.compress(b"x" * 99, mtime=0)
OLD, NEW, NONE = "1" * 40, "2" * 40, "0" * 40


@pytest.mark.parametrize(
    ("method", "path", "query", "target"),
    [
        ("GET", b"/-/git/demo.git/info/refs", b"service=git-upload-pack", GitTarget("demo", UPLOAD, True)),
        ("GET", b"/-/git/a-1.git/info/refs", b"service=git-receive-pack", GitTarget("a-1", RECEIVE, True)),
        ("POST", b"/-/git/demo.git/git-upload-pack", b"", GitTarget("demo", UPLOAD, False)),
        ("POST", b"/-/git/demo.git/git-receive-pack", b"", GitTarget("demo", RECEIVE, False)),
    ],
)
def test_the_requests_of_git(method: str, path: bytes, query: bytes, target: GitTarget) -> None:
    assert read_git_target(method, path, query) == target


def test_the_types_of_bodies() -> None:
    assert GitTarget("demo", UPLOAD, True).content_type == "application/x-git-upload-pack-advertisement"
    assert GitTarget("demo", RECEIVE, False).content_type == "application/x-git-receive-pack-result"
    assert GitTarget("demo", RECEIVE, False).request_type == "application/x-git-receive-pack-request"


@pytest.mark.parametrize(
    ("method", "path", "query", "kind"),
    [
        ("GET", b"/-/git/demo.git/info/refs", b"", ProblemKind.NOT_FOUND),  # the dumb protocol
        ("GET", b"/-/git/demo.git/info/refs", b"service=git-upload-archive", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/info/refs", b"service=git-upload-pack&x=1", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/info/refs", b"service=git%2dupload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/HEAD", b"", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/objects/info/packs", b"", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/prichal.json", b"", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/../git/demo.git/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/%64emo.git/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/a/demo.git/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git//demo.git/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/demo.git/info/refs\n", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("GET", b"/-/git/\xd0\xb4.git/info/refs", b"service=git-upload-pack", ProblemKind.NOT_FOUND),
        ("POST", b"/-/git/demo.git/git-upload-archive", b"", ProblemKind.NOT_FOUND),
        ("POST", b"/-/git/demo.git/git-receive-pack", b"service=git-receive-pack", ProblemKind.NOT_FOUND),
        ("POST", b"/-/git/demo.git/info/refs", b"service=git-upload-pack", ProblemKind.METHOD),
        ("GET", b"/-/git/demo.git/git-upload-pack", b"", ProblemKind.METHOD),
        ("PROPFIND", b"/-/git/demo.git/info/refs", b"service=git-upload-pack", ProblemKind.METHOD),
        ("PUT", b"/-/git/demo.git/git-receive-pack", b"", ProblemKind.METHOD),
    ],
)
def test_everything_else(method: str, path: bytes, query: bytes, kind: ProblemKind) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_git_target(method, path, query)
    assert refused.value.problem.kind is kind


# --- refs of a push ---------------------------------------------------------------------------------------------


def packet(text: bytes) -> bytes:
    return b"%04x%b" % (len(text) + 4, text)


def command(after: str, ref: str, before: str = OLD, more: bytes = b"") -> bytes:
    return packet(f"{before} {after} {ref}".encode() + more)


def fed(*pieces: bytes) -> PushCommands:
    commands = PushCommands()
    for piece in pieces:
        commands.feed(piece)
    return commands


PUSHED = command(NEW, "refs/heads/main", more=b"\0 report-status side-band-64k") + b"0000PACK\0\0\0\2"


@given(st.lists(st.integers(1, 120), max_size=20))
def test_the_pieces_do_not_matter(sizes: list[int]) -> None:
    body, pieces = command(NONE, "refs/heads/ветка") + PUSHED, []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    found = fed(*pieces, body)
    assert found.number == 2


def test_many_refs_are_counted() -> None:
    found = fed(*(command(NEW, f"refs/tags/v{number}") for number in range(1500)), b"0000")
    assert found.number == 1500


def test_what_is_no_ref_is_passed_over() -> None:
    found = fed(packet(b"shallow " + OLD.encode()), packet(b"push-cert\0x"), PUSHED)
    assert found.number == 1
    assert fed(b"0000").number == 0  # with which Git asks whether it may push
    assert fed(b"0001").number == 0
    assert fed(packet(b""), PUSHED).number == 0  # an empty packet ends the list for Git, too


@pytest.mark.parametrize(
    "body", [b"PACK", b"0003", b"00 4", b"-004", b"00\xd9\xa1\xd9\xa2", b"0x10", b"<htm"]
)
def test_lengths_that_are_none(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        fed(body)
    assert refused.value.problem.kind is ProblemKind.BAD_REQUEST


def test_a_length_that_lies_is_waited_for() -> None:
    assert fed(b"ffff" + OLD.encode()).number == 0


def test_a_list_without_an_end() -> None:
    commands, ref = PushCommands(), command(NEW, "refs/heads/" + "x" * 60_000)
    with pytest.raises(RequestRefused) as refused:
        for _ in range(requests.COMMANDS // len(ref) + 2):
            commands.feed(ref)
    assert refused.value.problem.kind is ProblemKind.TOO_LARGE


# --- gzip -------------------------------------------------------------------------------------------------------


def decoded(body: bytes, size: int, limit: int = 10**6) -> bytes:
    decoder = GunzippedBody(limit)
    pieces = [piece for at in range(0, len(body), size) for piece in decoder.pieces(body[at : at + size])]
    decoder.finish()
    return b"".join(pieces)


@given(st.binary(max_size=2000), st.integers(1, 300))
def test_gzip_in_any_pieces(content: bytes, size: int) -> None:
    assert decoded(gzip.compress(content), size) == content


def test_a_bomb_costs_its_limit() -> None:
    bomb = gzip.compress(bytes(50 * 2**20))
    decoder, most = GunzippedBody(2**20), 0
    with pytest.raises(RequestRefused) as refused:
        for piece in decoder.pieces(bomb):
            most = max(most, len(piece))
    assert refused.value.problem.kind is ProblemKind.TOO_LARGE
    assert most <= requests._STEP


@pytest.mark.parametrize(
    "body",
    [
        b"no gzip at all",
        zlib.compress(b"x"),
        PACKED[:-1],
        PACKED + b"more",
        PACKED_MANY[:-8] + bytes(8),
        b"",
    ],
)
def test_what_is_not_gzip(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        decoded(body, 7)
    assert refused.value.problem.kind is ProblemKind.MALFORMED_CODING
