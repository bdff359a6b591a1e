"""Boxes on the whole platform, on both storages: data is found where it was put, goes only if somebody wanted it to,
and a storage that is down hurts nobody who does not need it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.objects import S3Objects
from controller.domain.errors import ControllerError
from controller.domain.secret import Secret
from tests.support.platform import ECHO, Callers, Module, Platform, send
from tests.support.ports import free_port
from tests.support.storage_servers import MinioServer, minio_binary

DEVELOPER = {"Authorization": "Bearer the-developer-of-the-module"}
PEOPLE = {
    "anna": "the-key-of-anna-is-long",
    "boris": "the-key-of-boris-is-long",
    "dev": DEVELOPER["Authorization"][7:],
}


def bearer(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {PEOPLE[user]}"}


class Stored(Platform):
    """A platform with the storage of one backend, which can be taken away and given back."""

    def __init__(self, home: Path, minio: MinioServer | None) -> None:
        self.minio = minio
        settings: dict[str, object] = {}
        if minio is not None:
            keys = home / "storage-keys.yaml"
            keys.write_text(
                json.dumps({"accessKey": minio.access_key, "secretKey": minio.secret_key.reveal()})
            )
            keys.chmod(0o600)
            settings["storage"] = {
                "backend": "s3",
                "endpoint": minio.url,
                "credentials": str(keys),
                "admin": "minio",
                "listen": f"127.0.0.1:{free_port()}",
            }
        super().__init__(home, **settings)

    def server(self) -> int:
        """Process id of the embedded server, a child of the daemon's."""
        found = subprocess.run(
            ["pgrep", "-f", f"juicefs gateway.*{self.storage_address()}"], capture_output=True, text=True
        )
        pids = [int(line) for line in found.stdout.split()]
        return max(pids, default=0)

    def storage_address(self) -> str:
        """Where the embedded server listens, for nobody but the platform."""
        return (self.home / "state" / "storage" / "address").read_text()

    def root_objects(self) -> S3Objects:
        """The storage as its administrator sees it."""
        if self.minio:
            return self.minio.objects()
        environment = Path(f"/proc/{self.server()}/environ").read_bytes().split(b"\0")
        values = dict(entry.decode().split("=", 1) for entry in environment if b"=" in entry)
        keys = values["MINIO_ROOT_USER"], Secret(values["MINIO_ROOT_PASSWORD"])
        return S3Objects(f"http://{self.storage_address()}", *keys)

    def boxes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.prichal("box", "ls", "-o", "json").stdout)
        return found

    def box(self, app: str, name: str) -> dict[str, Any]:
        return next((b for b in self.boxes() if (b["app"], b["box"]) == (app, name)), {})


@pytest.fixture(scope="module", params=["embedded", "minio"])
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    home = tmp_path_factory.mktemp(f"platform-{request.param}")
    minio = None
    if request.param == "minio":
        if minio_binary() is None:
            pytest.skip("no minio binary: make minio builds it")
        (home / "minio").mkdir()
        minio = MinioServer(home / "minio")
        minio.start()
    running = Stored(home, minio)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        if minio:
            minio.stop()


def with_boxes(module: Module, *names: str, **spec: object) -> Module:
    for name in names:
        module.box(name, **spec)  # type: ignore[arg-type]
    auth = {"token": {"credentials": "people"}}
    return module.files_api(developers=("dev",), auth=auth)


def connect(platform: Platform, module: Module, app: str) -> str:
    revision = module.push()
    platform.connect(module, app, {"people": PEOPLE})
    platform.until_ready(app, revision)
    return revision


def push(platform: Platform, module: Module, app: str) -> None:
    revision = module.push()
    platform.poke(app)
    platform.until_ready(app, revision)


def reason(platform: Platform, app: str, kind: str = "Degraded") -> str:
    return str(platform.condition(app, kind).get("reason", ""))


def test_files_go_in_and_out_and_users_do_not_meet(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data"), app)
    name = "data/photos/%D0%BA%D0%BE%D1%82%20%231%3F%2B%25.png"
    for user in ("anna", "boris"):
        assert platform.put_file(app, name, user.encode(), headers=bearer(user)).status == 200
    for user in ("anna", "boris"):
        assert platform.get_file(app, name, headers=bearer(user)).body == user.encode()
    listed = platform.get(f"/{app}/files/data/photos/", bearer("anna")).json
    assert [file["name"] for file in listed["files"]] == ["кот #1?+%.png"]
    assert platform.get_file(app, name).status == 401
    assert platform.put_file(app, "data/m/x", b"1", "&area=developer", bearer("anna")).status == 403
    assert platform.put_file(app, "data/m/x", b"1", "&area=developer", bearer("dev")).status == 200
    platform.until(lambda: platform.box(app, "data")["files"] == 3)
    assert platform.box(app, "data")["used"] == len(b"annaboris1")


def test_data_outlives_its_box_and_its_app(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data"), app)
    assert platform.put_file(app, "data/g/file", b"kept", headers=bearer("anna")).status == 200
    platform.until(lambda: platform.box(app, "data")["files"] == 1)
    platform.disconnect(app)
    platform.until(lambda: platform.box(app, "data")["state"] == "kept")
    assert platform.get(f"/{app}/files/data/g/file", bearer("anna")).status == 404, "nobody can reach it"
    connect(platform, module, app)
    assert platform.get_file(app, "data/g/file", headers=bearer("anna")).body == b"kept"


def test_a_renamed_box_finds_its_data_by_adoption(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data"), app)
    assert platform.put_file(app, "data/g/file", b"mine", headers=bearer("anna")).status == 200
    old = platform.box(app, "data")["bucket"]
    push(platform, with_boxes(module.remove("manifests/box-data.yaml"), "archive"), app)
    assert platform.get(f"/{app}/files/data/g/file", bearer("anna")).status == 404
    assert platform.get(f"/{app}/files/archive/g/file", bearer("anna")).status == 404
    told = next(event for event in platform.events(app) if event["reason"] == "DataKept")
    assert old in told["message"]
    platform.prichal("box", "adopt", old, f"{app}/archive")
    assert platform.get_file(app, "archive/g/file", headers=bearer("anna")).body == b"mine"
    left = platform.box(app, "data")
    assert left["state"] == "kept"
    platform.prichal("box", "delete", left["bucket"], "--yes")
    platform.until(lambda: not platform.box(app, "data"))
    refused = platform.prichal("box", "delete", old, "--yes", check=False)
    assert refused.returncode != 0
    assert "BucketInUse" in refused.stderr
    assert platform.get_file(app, "archive/g/file", headers=bearer("anna")).body == b"mine"


def test_a_box_is_deleted_where_its_manifest_says_so(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data", "scratch", reclaimPolicy="Delete"), app)
    assert platform.put_file(app, "scratch/g/file", b"gone", headers=bearer("anna")).status == 200
    push(platform, module.remove("manifests/box-scratch.yaml"), app)
    assert not platform.box(app, "scratch")
    push(platform, with_boxes(module, "scratch"), app)
    assert platform.get(f"/{app}/files/scratch/g/file", bearer("anna")).status == 404


def test_capacity_is_kept_and_changes_safely(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data", capacity="1M"), app)
    assert platform.put_file(app, "data/g/a", b"x" * 700_000, headers=bearer("anna")).status == 200
    full = platform.put_file(app, "data/g/b", b"x" * 700_000, headers=bearer("anna"))
    assert full.status == 507
    assert full.json["capacity"] == 1_000_000
    platform.until(lambda: platform.box(app, "data")["used"] == 700_000)
    revision = with_boxes(module, "data", capacity="500k").push()
    platform.poke(app)
    platform.until(lambda: reason(platform, app) == "CapacityBelowUse" and platform.is_ready(app, revision))
    assert platform.box(app, "data")["capacity"] == 1_000_000
    push(platform, with_boxes(module, "data", capacity="2M"), app)
    assert platform.put_file(app, "data/g/b", b"x" * 700_000, headers=bearer("anna")).status == 200


def test_more_than_announced_is_refused_and_what_is_there_noticed(
    platform: Stored, module: Module, app: str
) -> None:
    connect(platform, with_boxes(module, "data", capacity="1M"), app)
    asked = platform.request("PUT", f"/{app}/files/data/g/big?size=10", headers=bearer("anna"))
    assert send("PUT", asked.json["presigned_put_url"], b"x" * 1_500_000).status == 413
    bucket = platform.box(app, "data")["bucket"]
    with contextlib.closing(platform.root_objects()) as objects:  # an administrator of the storage may do it
        key = "users/anna/file_groups/g/big"
        try:
            objects.put(bucket, key, io.BytesIO(b"x" * 1_500_000), 1_500_000)
        except ControllerError:  # the storage's own quota
            assert platform.minio is not None
            return
    platform.until(lambda: reason(platform, app) == "OverCapacity")
    assert platform.put_file(app, "data/g/more", b"x", headers=bearer("anna")).status == 507
    assert platform.request("DELETE", f"/{app}/files/data/g/big", headers=bearer("anna")).status == 204
    platform.until(lambda: reason(platform, app) == "")
    assert platform.put_file(app, "data/g/more", b"x", headers=bearer("anna")).status == 200


def test_a_bucket_that_was_deleted_by_hand_is_made_again(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data"), app)
    assert platform.put_file(app, "data/g/file", b"x", headers=bearer("anna")).status == 200
    platform.prichal("suspend", app)
    bucket = platform.box(app, "data")["bucket"]
    _delete_bucket(platform, bucket)
    assert platform.put_file(app, "data/g/file", b"x", headers=bearer("anna")).status in (404, 503)
    platform.prichal("resume", app)
    platform.until(lambda: platform.put_file(app, "data/g/file", b"y", headers=bearer("anna")).status == 200)
    platform.until(lambda: any("its bucket is gone" in event["message"] for event in platform.events(app)))


def _delete_bucket(platform: Stored, bucket: str) -> None:
    """As an administrator of the storage would."""
    with contextlib.closing(platform.root_objects()) as objects:
        objects.remove_bucket(bucket)


def test_who_serves_goes_on_while_the_storage_is_down(platform: Stored, module: Module, app: str) -> None:
    with_boxes(module, "data").served(ECHO, "1")
    connect(platform, module, app)
    assert platform.put_file(app, "data/g/file", b"safe", headers=bearer("anna")).status == 200
    with Callers(platform, app, 2) as callers:
        platform.until(lambda: callers.answered("1") > 10)
        _take_storage_away(platform)
        down = platform.request("PUT", f"/{app}/files/data/g/other?size=1", headers=bearer("anna"))
        if platform.minio:  # the embedded one is back before anybody can ask
            assert down.status == 503
            assert down.headers["retry-after"]
        module.served(ECHO, "2").box("more").push()
        platform.poke(app)
        platform.until(lambda: callers.answered("2") > 10)
        _give_storage_back(platform)
        platform.until(lambda: platform.box(app, "more").get("state") == "bound")
        platform.until(lambda: bool(platform.condition(app, "Ready").get("status")))
    assert callers.failures == []
    assert platform.get_file(app, "data/g/file", headers=bearer("anna")).body == b"safe"
    if not platform.minio:  # a part of the daemon, whose restart is told
        metrics = platform.get("/-/metrics").body.decode()
        assert 'prichal_restarts_total{part="storage"} ' in metrics
        restarted = [event["message"] for event in platform.events("@platform")]
        assert any("storage" in message and "SIGKILL" in message for message in restarted)


def _take_storage_away(platform: Stored) -> None:
    if platform.minio:
        platform.minio.kill()
    else:
        _kill_embedded(platform)


def _give_storage_back(platform: Stored) -> None:
    if platform.minio:
        platform.minio.start()


def _kill_embedded(platform: Stored) -> None:
    platform.until(platform.server)
    os.kill(platform.server(), signal.SIGKILL)


def test_a_storage_that_is_down_at_the_start(platform: Stored, module: Module, app: str) -> None:
    connect(platform, with_boxes(module, "data"), app)
    assert platform.put_file(app, "data/g/file", b"safe", headers=bearer("anna")).status == 200
    platform.kill("daemon", signal.SIGKILL)
    _take_storage_away(platform) if platform.minio else None
    platform.start_process("daemon")
    if platform.minio:
        platform.poke(app)
        platform.until(lambda: reason(platform, app) == "StorageUnreachable")
    _give_storage_back(platform)
    platform.until(lambda: bool(platform.condition(app, "Ready").get("status")))
    platform.until(lambda: platform.get_file(app, "data/g/file", headers=bearer("anna")).body == b"safe")
