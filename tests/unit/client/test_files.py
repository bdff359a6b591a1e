"""The client of the files API against real HTTP servers that fail to order: broken connections, refusals, wrong bytes,
files that change."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3.exceptions

from controller.client.errors import UNREACHABLE, Stopped, reached
from controller.client.files import FilesClient, checksums, tree
from controller.client.files.checksums import Match
from controller.client.files.errors import NOT_FILES, from_storage
from controller.client.files.resume import KEEP, ResumeState
from controller.client.retry import RetryPolicy
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.secret import Secret
from controller.domain.storage.addresses import BoxAddress, parse_address
from tests.support.faulty_server import after, cut, garble, lose_answer, status
from tests.support.files_server import FilesServer, composite, files_server
from tests.support.issuer import issuer, make_certificate

MIB = 2**20
TRIES = 3
ANNA = Secret("Basic " + base64.b64encode(b"anna:p:w").decode())


@pytest.fixture
def server() -> Iterator[FilesServer]:
    with files_server() as running:
        yield running


@pytest.fixture
def client(server: FilesServer, tmp_path: Path) -> Iterator[FilesClient]:
    with make_client(tmp_path) as made:
        yield made


def make_client(folder: Path, authorization: Secret = ANNA) -> FilesClient:
    return FilesClient(
        authorization, folder / "cache", RetryPolicy(Backoff(0.0, 0.0), TRIES - 1), parts_from=8 * MIB
    )


@pytest.fixture
def at(server: FilesServer) -> Callable[[str], BoxAddress]:
    """An address on the server."""
    return lambda path: replace(parse_address(f"demo:data/{path}"), server=server.url)


def content(size: int) -> bytes:
    """The same every time, and no two pieces of it alike."""
    return hashlib.shake_256(b"content").digest(size)


SMALL, LARGE = content(300_000), content(12 * MIB + 7)  # LARGE goes in three parts


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Count:
    """How many bytes were told to have moved."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, count: int) -> None:
        self.total += count


# --- what goes well ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "in parts"])
def test_there_and_back(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path, data: bytes
) -> None:
    address, up, down = at("g/a #?%+ü.bin"), Count(), Count()
    client.upload(write(tmp_path / "in", data), address, up)
    assert server.content("g/a #?%+ü.bin") == data
    found = client.download(address, tmp_path / "out", down)
    assert (tmp_path / "out").read_bytes() == data
    assert (found.size, up.total, down.total) == (len(data), len(data), len(data))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "in", "out"}


def test_credentials_go_to_the_server_and_never_to_the_storage(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    client.upload(write(tmp_path / "in", LARGE), at("g/f"), Count())
    client.download(at("g/f"), tmp_path / "out", Count())
    assert all(headers["authorization"] == ANNA.reveal() for headers in server.headers("api", "PUT"))
    sent = server.headers("storage", "PUT") + server.headers("storage", "GET")
    assert len(sent) == 4
    assert not any("authorization" in headers for headers in sent)


def test_a_small_file_goes_in_one_piece_with_its_checksum(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    found = client.upload(write(tmp_path / "in", SMALL), at("g/f"), Count())
    assert found.etag == hashlib.md5(SMALL).hexdigest()
    (headers,) = server.headers("storage", "PUT")
    assert headers["content-md5"] == base64.b64encode(hashlib.md5(SMALL).digest()).decode()
    assert headers["content-length"] == str(len(SMALL))


def test_downloads_have_usual_rights_and_replace_what_is_there(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    target = write(tmp_path / "out", b"old and longer" * 10**5)
    client.download(at("g/f"), target, Count())
    assert target.read_bytes() == SMALL
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_listings_come_page_by_page(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress]
) -> None:
    server.page = 2
    for name in ("a", "b", "c/d", "c/e", "f"):
        server.store(f"g/{name}", b"x")
    pages = list(client.pages(at("g/")))
    assert [([file.name for file in page.files], page.groups) for page in pages] == [
        (["a", "b"], ()),
        (["f"], ("c",)),
    ]
    names = [file.name for page in client.pages(at("g/"), recursive=True) for file in page.files]
    assert names == ["a", "b", "c/d", "c/e", "f"]


def test_a_large_group_is_removed_in_several_calls(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress]
) -> None:
    server.page = 2
    for name in "abcde":
        server.store(f"g/{name}", b"x")
    server.store("h/x", b"x")
    assert client.remove_group(at("g/")) == 5
    assert server.names() == ["h/x"]
    assert len(server.requests("api", "DELETE")) == 3


# --- what is tried again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in parts"])
@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("storage", status(503)),
        ("storage", status(500)),
        ("storage", status(403)),  # the link has expired
        ("storage", cut(100_000)),
        ("storage", lose_answer),
        ("storage", garble),
        ("api", status(503, Retry_After="0")),
        ("api", status(502)),
        ("api", cut(0)),
    ],
)
def test_uploads_outlive(
    server: FilesServer,
    client: FilesClient,
    at: Callable[[str], BoxAddress],
    tmp_path: Path,
    data: bytes,
    place: str,
    fault: Callable[..., bool],
) -> None:
    server.order(place, "PUT", fault)
    moved = Count()
    client.upload(write(tmp_path / "in", data), at("g/f"), moved)
    assert server.ordered == []
    assert server.content("g/f") == data
    assert moved.total == len(data)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", [status(503), status(403), cut(123_456), garble, lose_answer])
def test_downloads_outlive(
    server: FilesServer,
    client: FilesClient,
    at: Callable[[str], BoxAddress],
    tmp_path: Path,
    data: bytes,
    fault: Callable[..., bool],
) -> None:
    server.store("g/f", data)
    server.order("storage", "GET", fault)
    moved = Count()
    client.download(at("g/f"), tmp_path / "out", moved)
    assert (tmp_path / "out").read_bytes() == data
    assert moved.total == len(data)


def test_a_download_goes_on_where_it_broke_off(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    """Each attempt gets further than the one before, so there may be more of them than otherwise."""
    stored = server.store("g/f", LARGE)
    server.order("storage", "GET", *(cut(MIB) for _ in range(TRIES + 2)))
    client.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out").read_bytes() == LARGE
    asked = server.headers("storage", "GET")
    assert [headers.get("range") for headers in asked] == [
        None,
        *(f"bytes={number * MIB}-" for number in range(1, TRIES + 3)),
    ]
    assert {headers["if-match"] for headers in asked} == {f'"{stored.etag}"'}


def test_a_storage_without_ranges_sends_all_of_it_again(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    server.ranges = False
    server.order("storage", "GET", cut(100_000))
    moved = Count()
    client.download(at("g/f"), tmp_path / "out", moved)
    assert (tmp_path / "out").read_bytes() == SMALL
    assert moved.total == len(SMALL)


def test_a_file_that_is_replaced_meanwhile_is_never_mixed(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", LARGE)
    newer = content(9 * MIB)[::-1]

    def replace_it(handler: object) -> bool:
        server.store("g/f", newer)
        return False

    server.order("storage", "GET", cut(2 * MIB), replace_it)
    client.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out").read_bytes() == newer


def test_what_does_not_get_better_ends_after_all_attempts(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.order("storage", "PUT", *(status(503) for _ in range(TRIES)))
    with pytest.raises(Transient) as failed:
        client.upload(write(tmp_path / "in", SMALL), at("g/f"), Count())
    assert failed.value.reason == "StorageUnreachable"
    assert len(server.requests("storage", "PUT")) == TRIES


def test_wrong_bytes_in_the_storage_never_get_the_files_name(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL, etag="0" * 32)
    with pytest.raises(Stalled) as failed:
        client.download(at("g/f"), tmp_path / "out", Count())
    assert failed.value.reason == "ChecksumMismatch"
    assert len(server.requests("storage", "GET")) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_an_object_put_in_parts_by_somebody_else_is_checked_too(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", LARGE, etag=composite(LARGE, 8 * MIB))
    server.order("storage", "GET", garble)
    client.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out").read_bytes() == LARGE
    assert len(server.requests("storage", "GET")) == 2


# --- what is gone on with by a later command --------------------------------------------------------------------


def test_an_interrupted_upload_goes_on(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    file = write(tmp_path / "in", LARGE)
    refused = after(lambda: any(upload.parts for upload in server.uploads.values()), status(400))
    server.order("storage", "PUT", lambda _: False, refused, refused)
    with make_client(tmp_path) as first, pytest.raises(Stalled):
        first.upload(file, at("g/f"), Count())
    assert stat.S_IMODE((tmp_path / "cache/uploads.json").stat().st_mode) == 0o600
    server.ordered.clear()
    (upload,) = server.uploads.values()
    arrived, moved = set(upload.parts), Count()
    assert len(arrived) == 1
    server.seen.clear()
    with make_client(tmp_path) as second:
        second.upload(file, at("g/f"), moved)
    assert server.content("g/f") == LARGE
    # By the links: a part that the first client was sending may still come to the storage.
    links = [dict(parse_qsl(urlsplit(path).query)) for path in server.requests("api", "PUT")]
    assert {int(link["part"]) for link in links if "part" in link} == {1, 2, 3} - arrived
    assert moved.total == len(LARGE)
    assert json.loads((tmp_path / "cache/uploads.json").read_text()) == {}


def test_an_interrupted_upload_of_a_file_that_has_changed_is_given_up(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    file = write(tmp_path / "in", LARGE)
    server.order("api", "POST", lambda _: False, status(403))  # the completion
    with make_client(tmp_path) as first, pytest.raises(Stalled):
        first.upload(file, at("g/f"), Count())
    (left,) = server.uploads
    write(file, LARGE[::-1])
    with make_client(tmp_path) as second:
        second.upload(file, at("g/f"), Count())
    assert server.content("g/f") == LARGE[::-1]
    assert left not in server.uploads, "room is kept for it as long as it is there"


def test_parts_that_are_not_those_of_the_file_are_sent_again(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    file = write(tmp_path / "in", LARGE)
    server.order("api", "POST", lambda _: False, status(403))
    with make_client(tmp_path) as first, pytest.raises(Stalled):
        first.upload(file, at("g/f"), Count())
    (upload,) = server.uploads.values()
    upload.parts[2] = b"\0" * len(upload.parts[2])
    server.seen.clear()
    with make_client(tmp_path) as second:
        second.upload(file, at("g/f"), Count())
    assert server.content("g/f") == LARGE
    assert len(server.requests("storage", "PUT")) == 1


def test_an_upload_that_the_server_has_given_up_begins_anew(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    file = write(tmp_path / "in", LARGE)
    server.order("api", "POST", lambda _: False, status(403))
    with make_client(tmp_path) as first, pytest.raises(Stalled):
        first.upload(file, at("g/f"), Count())
    server.uploads.clear()
    with make_client(tmp_path) as second:
        second.upload(file, at("g/f"), Count())
    assert server.content("g/f") == LARGE


def test_a_completion_whose_answer_is_lost_is_a_completion(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.order("api", "POST", lambda _: False, lose_answer)
    found = client.upload(write(tmp_path / "in", LARGE), at("g/f"), Count())
    assert server.content("g/f") == LARGE
    assert found.etag == composite(LARGE, server.part_size)


def test_an_interrupted_download_goes_on(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", LARGE)
    server.order("storage", "GET", cut(9 * MIB), *(status(503) for _ in range(TRIES)))
    with make_client(tmp_path) as first, pytest.raises(Transient):
        first.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out.part").stat().st_size == 9 * MIB
    assert not (tmp_path / "out").exists()
    moved = Count()
    with make_client(tmp_path) as second:
        second.download(at("g/f"), tmp_path / "out", moved)
    assert (tmp_path / "out").read_bytes() == LARGE
    assert server.headers("storage", "GET")[-1]["range"] == f"bytes={9 * MIB}-"
    assert moved.total == len(LARGE)
    assert not (tmp_path / "out.part").exists()


def test_the_beginning_of_an_older_version_is_thrown_away(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", LARGE)
    server.order("storage", "GET", cut(9 * MIB), *(status(503) for _ in range(TRIES)))
    with make_client(tmp_path) as first, pytest.raises(Transient):
        first.download(at("g/f"), tmp_path / "out", Count())
    server.store("g/f", LARGE[::-1])
    with make_client(tmp_path) as second:
        second.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out").read_bytes() == LARGE[::-1]
    assert "range" not in server.headers("storage", "GET")[-1]


def test_stopping_ends_what_is_under_way(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", LARGE)

    def stop_after_some(count: int) -> None:
        if count > 0:
            client.stop()

    with pytest.raises(Stopped):
        client.download(at("g/f"), tmp_path / "out", stop_after_some)
    assert not (tmp_path / "out").exists()


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        (
            "g/missing",
            "FileNotFound",
            "There is no file g/missing",
        ),
        ("g/f?area=developer", "AccessDenied", "developer area"),
    ],
)
def test_refusals_have_the_servers_words(
    server: FilesServer, client: FilesClient, path: str, reason: str, words: str
) -> None:
    server.store("g/f", SMALL)
    with pytest.raises(Stalled, match=words) as failed:
        client.find(parse_address(f"{server.url}/demo/files/data/{path}"))
    assert failed.value.reason == reason
    assert len(server.seen) == 1, "asking again would not help"


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in parts"])
def test_a_full_box_is_told_with_its_numbers(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path, data: bytes
) -> None:
    server.capacity = 100
    with pytest.raises(Stalled, match="100 bytes free") as failed:
        client.upload(write(tmp_path / "in", data), at("g/f"), Count())
    assert failed.value.reason == "BoxFull"
    assert server.requests("storage", "PUT") == []


def test_a_file_where_a_group_is_is_refused(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    with pytest.raises(Stalled, match="same name") as failed:
        client.upload(write(tmp_path / "in", SMALL), at("g/f/x"), Count())
    assert failed.value.reason == "RequestRefused"


def test_wrong_credentials(server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path) -> None:
    with make_client(tmp_path, Secret("Bearer wr0ng")) as client, pytest.raises(Stalled) as failed:
        client.find(at("g/f"))
    assert failed.value.reason == "CredentialsRefused"
    assert "wr0ng" not in failed.value.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(200, b"<html>"), "is not JSON"),
        (status(200, b'{"boxes": [1]}'), "does not come from such an API"),
        (status(200, b"[]"), "does not come from such an API"),
        (status(200), "does not come from such an API"),
        (
            status(302, Location="https://elsewhere.example.org/secret?path"),
            "https://elsewhere.example.org\\.",
        ),
    ],
)
def test_what_is_no_files_api_is_said_so(
    server: FilesServer, client: FilesClient, fault: Callable[..., bool], words: str
) -> None:
    server.order("api", "GET", fault)
    with pytest.raises(Stalled, match=words) as failed:
        client.boxes(parse_address(f"{server.url}/demo/files"))
    assert failed.value.reason == "NotAFilesApi"


def test_nobody_listening(client: FilesClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Transient, match="Connection refused") as failed:
            client.boxes(parse_address(f"{url}/demo/files"))
    assert failed.value.reason == "ServerUnreachable"


def test_a_certificate_is_trusted_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    with issuer(certificate=certificate) as server:
        server.serve("/demo/files", {"boxes": []})
        address = parse_address(f"https://127.0.0.1:{server.port}/demo/files")
        with make_client(tmp_path) as client, pytest.raises(Stalled, match="SSL_CERT_FILE") as failed:
            client.boxes(address)
        assert failed.value.reason == "CertificateInvalid"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with make_client(tmp_path) as client:
            assert client.boxes(address) == ()


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(urllib3.exceptions).values()
        if isinstance(kind, type)
        and kind.__module__ == "urllib3.exceptions"
        and not issubclass(kind, Warning)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_the_library_becomes_one_of_ours(kind: type[Exception]) -> None:
    bare = type(kind.__name__, (kind,), {"__init__": Exception.__init__, "__str__": Exception.__str__})
    error = bare("secret-part-of-the-link")
    with (
        pytest.raises(ControllerError) as failed,
        reached("http://host/?secret-part-of-the-link", UNREACHABLE, NOT_FILES),
    ):
        raise error
    assert "secret-part" not in failed.value.message


def test_a_link_is_told_to_nobody(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    server.order("storage", "GET", *(cut(0) for _ in range(TRIES)))
    with pytest.raises(Transient) as failed:
        client.download(at("g/f"), tmp_path / "out", Count())
    assert "Signature" not in failed.value.message


# --- files of this machine --------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_sent(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    for data in (SMALL, LARGE):
        file = write(tmp_path / "in", data)

        def touch(handler: object, file: Path = file) -> bool:
            os.utime(file, (1, 1))
            return False

        server.order("storage", "PUT", touch)
        with pytest.raises(Stalled) as failed:
            client.upload(file, at("g/f"), Count())
        assert failed.value.reason == "LocalFileChanged"
    assert server.uploads == {}, "the upload was given up"


def test_a_file_that_gets_shorter_while_it_is_sent(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    file = write(tmp_path / "in", SMALL)

    def shorten(handler: object) -> bool:
        os.truncate(file, 10)
        return False

    server.order("api", "PUT", shorten)
    with pytest.raises(Stalled) as failed:
        client.upload(file, at("g/f"), Count())
    assert failed.value.reason == "LocalFileChanged"
    assert server.content("g/f") is None


def test_what_is_no_file_is_not_sent(
    client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(Stalled) as failed:
            client.upload(path, at("g/f"), Count())
        assert failed.value.reason == "LocalFileUnusable"


def test_devices_and_folders_are_not_replaced(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path, tmp_path / "pipe", tmp_path / "missing" / "out"):
        with pytest.raises(Stalled) as failed:
            client.download(at("g/f"), target, Count())
        assert failed.value.reason == "LocalFileUnusable"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_two_downloads_to_one_file_do_not_meet(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL)
    with (tmp_path / "out.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Stalled, match="another command"):
            client.download(at("g/f"), tmp_path / "out", Count())


def test_the_longest_names_have_room_for_a_part(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    name = "ü" * 127 + "x"
    server.store(f"g/{name}", SMALL)
    client.download(at(f"g/{name}"), tmp_path / name, Count())
    assert (tmp_path / name).read_bytes() == SMALL


# --- checksums and memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etag", "match"),
    [
        (hashlib.md5(LARGE).hexdigest(), Match.SAME),
        (hashlib.md5(SMALL).hexdigest(), Match.OTHER),
        (composite(LARGE, 5 * MIB), Match.SAME),
        (composite(LARGE, 8 * MIB), Match.SAME),
        (composite(LARGE, 16 * MIB), Match.SAME),
        (composite(LARGE[::-1], 5 * MIB), Match.OTHER),
        (composite(LARGE, MIB), Match.UNKNOWN),  # nobody puts such parts
        ("not-a-checksum", Match.UNKNOWN),
        ("", Match.UNKNOWN),
    ],
)
def test_etags_are_compared_with_content(tmp_path: Path, etag: str, match: Match) -> None:
    with write(tmp_path / "f", LARGE).open("rb") as file:
        assert checksums.compare(file.fileno(), len(LARGE), etag) is match


def test_etags_of_storages_with_keys_of_their_own_are_no_checksums(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    server.store("g/f", SMALL, etag="0" * 32)
    encrypted = {"x-amz-server-side-encryption": "aws:kms", "ETag": '"' + "0" * 32 + '"'}

    def answer(handler: object) -> bool:
        handler.reply(200, SMALL, encrypted)  # type: ignore[attr-defined]
        return True

    server.order("storage", "GET", answer)
    client.download(at("g/f"), tmp_path / "out", Count())
    assert (tmp_path / "out").read_bytes() == SMALL


def test_memory_forgets_what_is_old_and_survives_rubbish(tmp_path: Path) -> None:
    now = [1000.0]
    memory = ResumeState(tmp_path / "new" / "m.json", lambda: now[0])
    memory.remember("a", "1")
    now[0] += KEEP - 1
    memory.remember("b", "2")
    assert (memory.recall("a"), memory.recall("b")) == ("1", "2")
    now[0] += 2
    assert (memory.recall("a"), memory.recall("b")) == ("", "2")
    for rubbish in ("", "[1]", '{"a": 1}', "\0"):
        (tmp_path / "new" / "m.json").write_text(rubbish)
        assert memory.recall("a") == ""
    memory.remember("a", "3")
    assert memory.recall("a") == "3"


def test_a_cache_that_cannot_be_written_keeps_nobody_from_uploading(
    server: FilesServer, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    with make_client(tmp_path) as client:
        client.upload(write(tmp_path / "in", LARGE), at("g/f"), Count())
    assert server.content("g/f") == LARGE


# --- trees ------------------------------------------------------------------------------------------------------


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FILES = {"a.txt": b"a", "b/c.bin": SMALL, "b/d e/f": b"", "large": LARGE}


def test_a_folder_there_and_back_and_across(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    for name, data in FILES.items():
        write(tmp_path / "in" / name, data)
    size = sum(map(len, FILES.values()))
    jobs = tree.uploads(client, tmp_path / "in", at("g/"))
    moved = Count()
    assert tree.run(client, jobs, moved) == tree.CopyTotals(4, 0, size)
    assert moved.total == size
    assert server.names() == sorted(f"g/{name}" for name in FILES)
    assert tree.run(client, tree.relays(client, at("g/"), at("h/")), Count()) == tree.CopyTotals(4, 0, size)
    jobs = tree.downloads(client, at("h/"), tmp_path / "out")
    assert tree.run(client, jobs, Count()) == tree.CopyTotals(4, 0, size)
    assert tree_of(tmp_path / "out") == FILES


def test_what_is_there_already_is_passed_over(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    for name, data in FILES.items():
        write(tmp_path / "in" / name, data)
    tree.run(client, tree.uploads(client, tmp_path / "in", at("g/")), Count())
    write(tmp_path / "in" / "a.txt", b"b")  # of the same size
    server.seen.clear()
    totals = tree.run(client, tree.uploads(client, tmp_path / "in", at("g/")), Count())
    assert totals == tree.CopyTotals(1, 3, 1)
    assert server.content("g/a.txt") == b"b"
    assert len(server.requests("storage", "PUT")) == 1
    totals = tree.run(client, tree.downloads(client, at("g/"), tmp_path / "in"), Count())
    assert totals == tree.CopyTotals(0, 4, 0)
    tree.run(client, tree.relays(client, at("g/"), at("h/")), Count())
    assert tree.run(client, tree.relays(client, at("g/"), at("h/")), Count()) == tree.CopyTotals(0, 4, 0)


def test_one_file_that_cannot_be_copied_keeps_no_other_from_it(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    for name in ("a", "b\\c", "d"):
        write(tmp_path / "in" / name, b"x")
    (tmp_path / "in" / "gone").symlink_to("nowhere")
    (tmp_path / "in" / "loop").symlink_to(".")
    totals = tree.run(client, tree.uploads(client, tmp_path / "in", at("g/")), Count())
    assert (totals.copied, [name for name, _ in totals.failed]) == (2, ["b\\c", "gone", "loop"])
    assert server.names() == ["g/a", "g/d"]


def test_what_would_befall_all_files_ends_the_copy(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path
) -> None:
    for number in range(50):
        write(tmp_path / "in" / str(number), SMALL)
    server.capacity = len(SMALL) * 2
    with pytest.raises(Stalled) as failed:
        tree.run(client, tree.uploads(client, tmp_path / "in", at("g/")), Count())
    assert failed.value.reason == "BoxFull"
    assert len(server.requests("api", "PUT")) < 50


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//x", "a\0"])
def test_a_server_cannot_lead_out_of_the_folder(
    server: FilesServer, client: FilesClient, at: Callable[[str], BoxAddress], tmp_path: Path, name: str
) -> None:
    server.store(f"g/{name}", SMALL)
    before = sorted(tmp_path.iterdir())
    totals = tree.run(client, tree.downloads(client, at("g/"), tmp_path / "in" / "deep"), Count())
    assert [error.reason for _, error in totals.failed] == ["AddressInvalid"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("body", "answered", "reason", "words"),
    [
        (
            b'{"status": 400, "code": "BadDigest", "detail": "It is another one."}',
            400,
            "ChecksumMismatch",
            "another",
        ),
        (
            b'{"type": "urn:prichal:problem:link-refused", "detail": "the link has expired"}',
            403,
            "LinkRefused",
            "exp",
        ),
        (
            b"<Error><Code>BadDigest</Code><Message>It differs.</Message></Error>",
            400,
            "ChecksumMismatch",
            "differs",
        ),
        (b"{", 400, "StorageRefused", "answers 400"),
        (b"[]", 503, "StorageUnreachable", "answers 503"),
        (b'{"detail": ["x"], "code": {}}', 404, "FileNotFound", "x"),
    ],
)
def test_what_a_link_answers_is_told_in_its_words(
    body: bytes, answered: int, reason: str, words: str
) -> None:
    error = from_storage(urllib3.HTTPResponse(body, status=answered), "cannot read x")
    assert error.reason == reason
    assert words in error.message
