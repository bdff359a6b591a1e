"""Clients of S3 with the account of a component, as the documentation shows them, through the object proxy."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.names import AppName, ComponentName
from controller.domain.storage.accounts import component_secret
from controller.domain.storage.box import BoxRecord, Part, StorageAccess
from tests.integration.web.conftest import echo, serving
from tests.support.pages import ROOT, blocks
from tests.support.platform import send
from tests.support.serve_web import objects_address, settings_of
from tests.support.storage_servers import embedded_server, minio_binary, minio_server
from tests.support.stores import open_store

PAGE = ROOT / "docs" / "reference" / "containers.md"
REQUIREMENTS = Path(__file__).with_name("requirements-sdks.txt")
BUCKET, OTHERS = "prichal.demo.data", "prichal.other.data"
ACCOUNT = "prichal.demo.0123456789ab"
SERVERS = {"embedded": embedded_server, "minio": minio_server}


@pytest.fixture(params=SERVERS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a container finds of its account. Behind it are a storage and a web process."""
    if request.param == "minio" and minio_binary() is None:
        pytest.skip("no minio: `make minio` builds it")
    state, folder = tmp_path / "state", tmp_path / "storage"
    state.mkdir()
    folder.mkdir()
    with (
        SERVERS[request.param](folder) as server,
        closing(open_store(settings_of(state).database)) as store,
        closing(server.objects()) as objects,
        echo("none") as component,
    ):
        url = f"http://{objects_address(state)}"
        store.boxes.record_access(StorageAccess(server.url, url, server.access_key, server.secret_key))
        store.boxes.save(BoxRecord(AppName("demo"), ComponentName("data"), BUCKET, 10**9))
        store.boxes.grant(ACCOUNT, (BUCKET,))
        for bucket in (BUCKET, OTHERS):
            objects.create_bucket(bucket)
        objects.put(OTHERS, "secret", io.BytesIO(b"x"), 1)
        with serving(state, store, component):
            yield {
                "UNIP_S3_ENDPOINT": url,
                "UNIP_S3_REGION": "us-east-1",
                "UNIP_S3_ACCESS_KEY": ACCOUNT,
                "UNIP_S3_SECRET_KEY": component_secret(server.secret_key, ACCOUNT).reveal(),
                "UNIP_BOX_DATA": BUCKET,
            }
        assert [found.key for found in objects.page(OTHERS).objects] == ["secret"]


#: Goes on from the documentation's example: what else programs do with a client.
BOTO3 = """
import io
from botocore.config import Config
from botocore.exceptions import ClientError

large = os.urandom(9 * 2**20)
wrong = {"CRC32": "A" * 6 + "==", "CRC32C": "A" * 6 + "==", "CRC64NVME": "A" * 11 + "="}
wrong |= {"SHA1": "A" * 27 + "=", "SHA256": "A" * 43 + "="}
SUMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
for config in (Config(), Config(s3={"payload_signing_enabled": True}), Config(signature_version="s3v4")):
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ["UNIP_S3_ENDPOINT"],
        region_name=os.environ["UNIP_S3_REGION"],
        aws_access_key_id=os.environ["UNIP_S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["UNIP_S3_SECRET_KEY"],
        config=config,
    )
    s3.upload_fileobj(io.BytesIO(large), bucket, "g/\\u00e9 +1", ExtraArgs={"Metadata": {"a": "b"}})
    assert s3.head_object(Bucket=bucket, Key="g/\\u00e9 +1")["Metadata"] == {"a": "b"}
    s3.copy({"Bucket": bucket, "Key": "g/\\u00e9 +1"}, bucket, "g/copy")
    assert s3.get_object(Bucket=bucket, Key="g/copy")["Body"].read() == large
    listed = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix="g/")["Contents"]]
    assert listed == ["g/copy", "g/\\u00e9 +1"], listed
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in [*listed, "none"]]})
    assert len(deleted["Deleted"]) == 3 and "Errors" not in deleted, deleted
    for name in SUMS:
        s3.put_object(Bucket=bucket, Key="sum", Body=name.encode(), ChecksumAlgorithm=name)
        s3.upload_fileobj(io.BytesIO(large), bucket, "sums", ExtraArgs={"ChecksumAlgorithm": name})
        found = s3.get_object(Bucket=bucket, Key="sums", ChecksumMode="ENABLED")
        assert found["Body"].read() == large
        try:
            s3.put_object(Bucket=bucket, Key="sum", Body=b"x", **{f"Checksum{name}": wrong[name]})
        except ClientError as error:
            assert error.response["Error"]["Code"] == "BadDigest", error
        else:
            raise AssertionError(f"another {name} was taken")
        assert s3.get_object(Bucket=bucket, Key="sum")["Body"].read() == name.encode()
    other = "prichal.other.data"
    for attempt in (
        lambda: s3.get_object(Bucket=other, Key="secret"),
        lambda: s3.get_object(Bucket=bucket, Key=f"../{other}/secret"),
        lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource=f"{other}/secret"),
        lambda: s3.copy_object(Bucket=bucket, Key="x", CopySource=f"{bucket}/../{other}/secret"),
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix=f"../{other}/"),
        lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"", ACL="public-read"),
    ):
        try:
            attempt()
        except ClientError:
            continue
        raise AssertionError("it was done")
"""


@pytest.fixture(scope="module")
def sdks() -> Path:
    """The programs of an environment with Amazon's clients."""
    environment = ROOT / "build" / "sdks"
    subprocess.run([ROOT / "scripts" / "python-env", environment, REQUIREMENTS], check=True)
    return environment / "bin"


@pytest.mark.timeout(900)  # boto3 is installed first
def test_boto3_as_the_documentation_shows_it(sdks: Path, box: dict[str, str]) -> None:
    (block,) = [block for block in blocks(PAGE) if block.language == "python" and "boto3" in block.text]
    command = [str(sdks / "python"), "-c", block.text + BOTO3]
    done = subprocess.run(command, env={**os.environ, **box}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
def test_the_command_line_of_amazon(sdks: Path, box: dict[str, str], tmp_path: Path) -> None:
    account = {
        "AWS_ENDPOINT_URL": box["UNIP_S3_ENDPOINT"],
        "AWS_REGION": box["UNIP_S3_REGION"],
        "AWS_ACCESS_KEY_ID": box["UNIP_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": box["UNIP_S3_SECRET_KEY"],
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        program = [str(sdks / "python"), str(sdks / "aws"), "s3", *command]
        return subprocess.run(program, env=account, capture_output=True, text=True)

    here = tmp_path / "files"
    here.mkdir()
    (here / "large").write_bytes(os.urandom(9 * 2**20))
    (here / "small").write_text("small")
    for command in (
        ("sync", str(here), f"s3://{BUCKET}/g"),
        ("cp", str(here / "large"), f"s3://{BUCKET}/g/large", "--checksum-algorithm", "CRC64NVME"),
        ("cp", str(here / "small"), f"s3://{BUCKET}/g/crc32c", "--checksum-algorithm", "CRC32C"),
        ("cp", f"s3://{BUCKET}/g/large", str(tmp_path / "back"), "--checksum-mode", "ENABLED"),
        ("mv", f"s3://{BUCKET}/g/small", f"s3://{BUCKET}/g/other"),
        ("rm", "--recursive", f"s3://{BUCKET}/g"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "back").read_bytes() == (here / "large").read_bytes()
    assert run("ls", f"s3://{BUCKET}/g/").stdout == ""
    assert run("ls", f"s3://{OTHERS}").returncode != 0
    assert run("cp", f"s3://{OTHERS}/secret", str(tmp_path / "secret")).returncode != 0


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no file systems of users here")
@pytest.mark.skipif(shutil.which("s3fs") is None, reason="s3fs is not here")
def test_s3fs(box: dict[str, str], tmp_path: Path) -> None:
    place, keys = tmp_path / "mounted", tmp_path / "keys"
    place.mkdir()
    keys.write_text(f"{box['UNIP_S3_ACCESS_KEY']}:{box['UNIP_S3_SECRET_KEY']}")
    keys.chmod(0o600)
    options = f"passwd_file={keys},url={box['UNIP_S3_ENDPOINT']},use_path_request_style,endpoint=us-east-1"

    def mounted(bucket: str) -> bool:
        command = ["s3fs", bucket, str(place), "-o", f"{options},retries=1"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode == 0 and os.path.ismount(place)

    assert not mounted(OTHERS)
    assert mounted(BUCKET)
    try:
        content = os.urandom(9 * 2**20)
        (place / "below").mkdir()
        (place / "below" / "large").write_bytes(content)
        (place / "small").write_text("small")
        (place / "small").rename(place / "below" / "other")
        assert sorted(found.name for found in (place / "below").iterdir()) == ["large", "other"]
        assert (place / "below" / "large").read_bytes() == content
        (place / "below" / "large").unlink()
    finally:
        subprocess.run(["fusermount", "-u", str(place)], check=True)


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not here")
def test_rclone(box: dict[str, str], tmp_path: Path) -> None:
    remote = {
        "RCLONE_CONFIG_BOX_TYPE": "s3",
        "RCLONE_CONFIG_BOX_PROVIDER": "Other",
        "RCLONE_CONFIG_BOX_ENDPOINT": box["UNIP_S3_ENDPOINT"],
        "RCLONE_CONFIG_BOX_ACCESS_KEY_ID": box["UNIP_S3_ACCESS_KEY"],
        "RCLONE_CONFIG_BOX_SECRET_ACCESS_KEY": box["UNIP_S3_SECRET_KEY"],
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["rclone", *command], env=remote, capture_output=True, text=True)

    here = tmp_path / "files" / "below"
    here.mkdir(parents=True)
    (here / "large").write_bytes(os.urandom(6 * 2**20))
    (here.parent / "small").write_text("small")
    for command in (
        ("sync", str(here.parent), f"box:{BUCKET}/g"),
        ("check", str(here.parent), f"box:{BUCKET}/g"),
        ("copy", f"box:{BUCKET}/g", str(tmp_path / "back")),
        ("moveto", f"box:{BUCKET}/g/small", f"box:{BUCKET}/g/other"),
        ("delete", f"box:{BUCKET}/g"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "back/below/large").read_bytes() == (here / "large").read_bytes()
    assert run("ls", f"box:{BUCKET}/g").stdout == ""
    assert run("ls", f"box:{OTHERS}").returncode != 0


def test_objects_get_the_content_type_of_their_names(tmp_path: Path) -> None:
    """In one piece and in parts."""
    with embedded_server(tmp_path) as server, closing(server.objects()) as objects:
        objects.create_bucket(BUCKET)
        objects.put(BUCKET, "g/cat.png", io.BytesIO(b"x"), 1)
        objects.put(BUCKET, "g/said", io.BytesIO(b"x"), 1, "text/csv")
        upload = objects.begin_upload(BUCKET, "g/table.csv")
        part = objects.sign("PUT", BUCKET, "g/table.csv", 60.0, {"uploadId": upload, "partNumber": "1"})
        etag = send("PUT", part, b"1,2").headers["etag"].strip('"')
        objects.complete_upload(BUCKET, "g/table.csv", upload, (Part(1, 3, etag),))
        found = {
            key: send("GET", objects.sign("GET", BUCKET, key, 60.0)).headers["content-type"]
            for key in ("g/cat.png", "g/said", "g/table.csv")
        }
    assert found == {"g/cat.png": "image/png", "g/said": "text/csv", "g/table.csv": "text/csv"}
