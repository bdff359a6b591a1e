"""Containers with an account of their own for the storage: they reach the boxes that their manifest connects, and no
other one, not even of their own app."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest

from tests.support.engines import BASE_IMAGE
from tests.support.platform import JSON, Module, Platform
from tests.support.ports import free_port

#: Lists a bucket as any S3 client would, with the signature of AWS (version 4).
LISTER = '''
import datetime, hashlib, hmac, os, urllib.error, urllib.request


def predict(inputs):
    """List a bucket.

    :param inputs.bucket: its name, or the name of a variable that holds it
    :type inputs.bucket: str
    :param outputs.answer: the status, and the text
    :type outputs.answer: dict
    """
    asked = inputs[0]["data"]
    try:
        with urllib.request.urlopen(signed(os.environ.get(asked, asked))) as reply:
            return {"answer": {"status": reply.status, "text": reply.read().decode()}}
    except urllib.error.HTTPError as error:
        return {"answer": {"status": error.code, "text": error.read().decode()}}


def signed(bucket):
    endpoint, region = os.environ["UNIP_S3_ENDPOINT"], os.environ["UNIP_S3_REGION"]
    host = endpoint.partition("://")[2]
    at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    query, names = "list-type=2", "host;x-amz-content-sha256;x-amz-date"
    headers = "host:%s\\nx-amz-content-sha256:%s\\nx-amz-date:%s\\n" % (host, empty, at)
    request = "\\n".join(["GET", "/" + bucket, query, headers, names, empty])
    scope = "%s/%s/s3/aws4_request" % (at[:8], region)
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\\n".join(["AWS4-HMAC-SHA256", at, scope, digest])
    key = ("AWS4" + os.environ["UNIP_S3_SECRET_KEY"]).encode()
    for part in (at[:8], region, "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    credential = os.environ["UNIP_S3_ACCESS_KEY"] + "/" + scope
    line = "AWS4-HMAC-SHA256 Credential=%s, SignedHeaders=%s, Signature=%s" % (credential, names, key.hex())
    sent = {"x-amz-date": at, "x-amz-content-sha256": empty, "Authorization": line}
    return urllib.request.Request("%s/%s?%s" % (endpoint, bucket, query), headers=sent)
'''

LISTED = """
for bucket in (os.environ["UNIP_BOX_DATA"], os.environ["UNIP_BOX_DATA"].replace(".data", ".plans")):
    answer = predict([{"data": bucket}])["answer"]
    print(answer["status"], "file_groups/g/file" in answer["text"])
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Its storage listens where containers reach this host: the address of Docker's own bridge."""
    running = Platform(tmp_path_factory.mktemp("platform"))
    (pool,) = running.docker.inspect_network("bridge")["IPAM"]["Config"]
    # An engine that was started for the first time does not name the gateway: it is the first address.
    gateway = pool.get("Gateway") or next(ipaddress.ip_network(pool["Subnet"]).hosts())
    listen = f"{gateway}:{free_port()}"
    running.settings["storage"] = {"listen": listen, "containerUrl": f"http://{listen}"}
    try:
        yield running.start()
    finally:
        running.stop()


def test_a_container_reaches_its_boxes_and_no_others(platform: Platform, module: Module, app: str) -> None:
    module.write("app.py", LISTER).write("Dockerfile", f"FROM {BASE_IMAGE}\nWORKDIR /srv\nCOPY app.py .\n")
    module.component(
        "model",
        image={"build": {"context": "."}},
        mlService={"inference": "app:predict"},
        resources={"cpus": 0.5, "memory": "128Mi"},
        connectedBoxes=[{"name": "data"}],
    )
    command = ["python3", "-c", LISTER + LISTED]
    stage = {"name": "list", "image": {"existingImageName": BASE_IMAGE}, "command": command}
    module.pipeline(connectedBoxes=[{"name": "data"}], stages=[stage]).runs_api(apiSpec={})
    module.api().box("data").box("plans").files_api()
    revision = module.push()
    platform.connect(module, app)
    platform.until_ready(app, revision)
    for box in ("data", "plans"):
        assert platform.put_file(app, f"{box}/g/file", b"x").status == 200
    buckets = {b["box"]: b["bucket"] for b in json.loads(platform.prichal("box", "ls", "-o", "json").stdout)}

    def ask(bucket: str) -> dict[str, object]:
        reply = platform.predict(app, [{"name": "bucket", "datatype": "str", "data": bucket}])
        assert reply.status == 200, reply.body
        answer: dict[str, object] = reply.json["outputs"][0]["data"]
        return answer

    own = ask("UNIP_BOX_DATA")
    assert own["status"] == 200, own
    assert "file_groups/g/file" in str(own["text"])
    foreign = ask(buckets["plans"])
    assert foreign["status"] == 403
    assert "AccessDenied" in str(foreign["text"])
    run = platform.request("POST", f"/{app}/train/runs", b"{}", {**JSON, "Prefer": "wait=30"}).json
    assert run["state"] == "SUCCEEDED", run
    log = platform.get(f"/{app}/train/runs/{run['id']}/logs").body.decode()
    assert log == "200 True\n403 False\n", "a stage reaches the same boxes"
    secret = platform.home.joinpath("log.txt").read_text(errors="replace")
    assert "UNIP_S3_SECRET_KEY" not in secret
