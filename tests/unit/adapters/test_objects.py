"""What of the object storage's adapter needs no server: links, policies, credentials, and servers that are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from controller.adapters.objects import S3Objects, S3Storage
from controller.adapters.objects.admin import policy
from controller.config.settings import StorageSettings
from controller.domain.errors import ControllerError, Stalled
from controller.domain.secret import Secret
from controller.domain.storage.accounts import account_secret, web_account
from controller.domain.storage.box import AccountGrant, StorageAccess

NOBODY = "http://127.0.0.1:1"  # nothing listens there
SECRET = Secret("a-secret-key")


def test_links_are_signed_and_nothing_is_sent() -> None:
    objects = S3Objects(NOBODY, "me", SECRET, "eu-west-1")
    link = urlsplit(
        objects.sign("PUT", "t.app.box", "users/u/é #?+", 900, {"partNumber": "3", "uploadId": "a/b="})
    )
    assert f"{link.scheme}://{link.netloc}" == NOBODY
    assert link.path == "/t.app.box/users/u/%C3%A9%20%23%3F%2B"
    query = parse_qs(link.query)
    assert (query["partNumber"], query["uploadId"]) == (["3"], ["a/b="])
    assert (query["X-Amz-Expires"], query["X-Amz-SignedHeaders"]) == (["900"], ["host"])
    assert query["X-Amz-Credential"][0].endswith("/eu-west-1/s3/aws4_request")


def test_a_link_lives_at_least_a_second() -> None:
    link = S3Objects(NOBODY, "me", SECRET).sign("GET", "t.app.box", "a", 0.2)
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["1"]


@pytest.mark.parametrize("bucket", ["a", "UPPER", "two..dots"])
def test_names_that_no_bucket_has_are_refused(bucket: str) -> None:
    with pytest.raises(Stalled) as caught:
        S3Objects(NOBODY, "me", SECRET).create_bucket(bucket)
    assert caught.value.reason == "StorageRefused"


def test_a_policy_names_what_is_granted_and_nothing_else() -> None:
    assert policy((AccountGrant("a.*"), AccountGrant("b", write=False))) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": ["arn:aws:s3:::a.*"],
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": ["arn:aws:s3:::a.*/*"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
                "Resource": ["arn:aws:s3:::b"],
            },
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/*"]},
        ],
    }


def test_no_grants_forbid_everything() -> None:
    [statement] = policy(())["Statement"]
    assert statement == {"Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}


def test_secrets_of_accounts_are_derived_and_differ() -> None:
    web = web_account(b"k" * 32, "prichal")
    assert (web.name, web.grants) == ("prichal-web", (AccountGrant("prichal.*"),))
    assert web == web_account(b"k" * 32, "prichal")
    others = {account_secret(b"k" * 32, "other").reveal(), account_secret(b"l" * 32, web.name).reveal()}
    assert web.secret.reveal() not in others
    assert len({*others, web.secret.reveal()}) == 3
    assert {len(secret) for secret in others} == {40}


# --- the storage that config names -----------------------------------------------------------------------------------


def storage(credentials: Path | None, endpoint: str = NOBODY, admin: str = "none") -> S3Storage:
    settings = StorageSettings(backend="s3", endpoint=endpoint, credentials=credentials, admin=admin)
    return S3Storage(settings, "prichal", b"k" * 32)


def test_without_accounts_the_configured_keys_are_shared(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("accessKey: me\nsecretKey: a-secret-key\n")
    shared = storage(tmp_path / "keys.yaml")
    assert shared.admin() is None
    assert shared.access() == StorageAccess(NOBODY, "http://127.0.0.1:9000", "me", SECRET)
    assert shared.objects() is shared.objects()
    shared.close()


def test_an_admin_api_that_does_not_answer_gives_no_access(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("accessKey: me\nsecretKey: a-secret-key\n")
    with pytest.raises(ControllerError) as caught:
        storage(tmp_path / "keys.yaml", admin="minio").access()
    assert caught.value.reason == "StorageUnreachable"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        ("accessKey: [", "not valid YAML"),
        ("accessKey: me", "must have two texts"),
        ("accessKey: me\nsecretKey: 5\n", "must have two texts"),
        ("accessKey: me\nsecretKey: ''\n", "must have two texts"),
        ("accessKey: me\nsecretKey: s3cr3t\nregion: r\n", "must have two texts"),
        ("a: 1\n---\nb: 2\n", "must have two texts"),
        ("", "must have two texts"),
    ],
)
def test_unusable_credentials_are_told_without_quoting_them(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "keys.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Stalled, match=problem) as caught:
        storage(path).objects()
    assert caught.value.reason == "StorageCredentials"
    assert str(path) in caught.value.message
    assert "s3cr3t" not in caught.value.message


def test_credentials_that_are_not_set() -> None:
    with pytest.raises(Stalled, match=r"storage\.credentials"):
        storage(None).objects()


# --- servers that are no S3 endpoint ---------------------------------------------------------------------------------


class WebSite(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><p>Welcome to a site that is no storage at all"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), WebSite) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_site_is_no_storage(site: str) -> None:
    objects = S3Objects(site, "me", SECRET)
    for call in (objects.buckets, objects.ping, lambda: objects.page("t.app.box")):
        with pytest.raises(Stalled) as caught:
            call()
        assert caught.value.reason == "StorageRefused"
    objects.close()
