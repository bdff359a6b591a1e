"""The client of registries against a real one: Debian's `docker-registry`."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.registries import HttpRegistries
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from tests.support.registry import PASSWORD, USER, LocalRegistry, local_registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def _send(registry: LocalRegistry, method: str, path: str, body: bytes, kind: str) -> str:
    """The answer's Location."""
    url = path if path.startswith("http") else f"http://{registry.host}{path}"
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": kind}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.headers.get("Location", ""))


def blob(registry: LocalRegistry, name: str, content: bytes) -> dict[str, object]:
    place = _send(registry, "POST", f"/v2/{name}/blobs/uploads/", b"", "application/octet-stream")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _send(registry, "PUT", f"{place}&digest={digest}", content, "application/octet-stream")
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(content)}


def image(registry: LocalRegistry, name: str, tag: str, architecture: str = "amd64") -> str:
    """Push an image without layers; its digest."""
    config = json.dumps({"architecture": architecture, "os": "linux", "comment": tag}).encode()
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(registry, name, config),
        "layers": [],
    }
    return put(registry, name, tag, content, MANIFEST)


def put(registry: LocalRegistry, name: str, tag: str, content: dict[str, object], kind: str) -> str:
    body = json.dumps(content).encode()
    _send(registry, "PUT", f"/v2/{name}/manifests/{tag}", body, kind)
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def client() -> HttpRegistries:
    return HttpRegistries(False, Path("/nowhere"))


def test_tags_come_in_pages_and_lead_to_digests(registry: LocalRegistry) -> None:
    name = "pages/demo"
    digest = image(registry, name, "1.0.0")
    config = json.dumps({"architecture": "amd64", "os": "linux", "comment": "1.0.0"}).encode()
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(registry, name, config),
        "layers": [],
    }
    for number in range(1, 1005):  # beyond one page
        put(registry, name, f"1.0.{number}", content, MANIFEST)
    found = client().tags(f"{registry.host}/{name}", registry.registries())
    assert set(found) == {f"1.0.{number}" for number in range(1005)}
    one = client().image(f"{registry.host}/{name}", "1.0.1004", registry.registries())
    assert (one.digest, one.platforms) == (digest, None)


def test_an_index_of_several_platforms(registry: LocalRegistry) -> None:
    name = "index/demo"
    entries = []
    for architecture in ("amd64", "arm64"):
        digest = image(registry, name, architecture, architecture)
        platform = {"os": "linux", "architecture": architecture}
        size = len(json.dumps({}).encode())
        entries.append({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
    digest = put(
        registry, name, "both", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX
    )
    found = client().image(f"{registry.host}/{name}", "both", registry.registries())
    assert (found.digest, found.platforms) == (digest, frozenset({"linux/amd64", "linux/arm64"}))


def test_what_a_registry_refuses(registry: LocalRegistry) -> None:
    image(registry, "refused/demo", "1.0.0")
    where = f"{registry.host}/refused/demo"
    with pytest.raises(Stalled) as caught:
        client().tags(where, registry.registries("a wrong one"))
    assert caught.value.reason == Reason.REGISTRY_DENIED
    (known, _), *_ = registry.registries()
    with pytest.raises(Stalled) as caught:
        client().tags(where, ((known, None),))
    assert caught.value.reason == Reason.REGISTRY_DENIED
    with pytest.raises(Stalled) as caught:
        client().tags(f"{registry.host}/refused/nothing", registry.registries())
    assert caught.value.reason == Reason.IMAGE_NOT_FOUND


def test_a_tag_that_disappears_and_a_registry_that_stops(tmp_path: Path) -> None:
    with local_registry(tmp_path) as registry:
        name = "gone/demo"
        image(registry, name, "1.0.0")
        image(registry, name, "1.1.0")
        where = f"{registry.host}/{name}"
        tags = (
            tmp_path / "data" / "docker" / "registry" / "v2" / "repositories" / name / "_manifests" / "tags"
        )
        shutil.rmtree(tags / "1.1.0")
        assert client().tags(where, registry.registries()) == ("1.0.0",)
        with pytest.raises(Stalled) as caught:
            client().image(where, "1.1.0", registry.registries())
        assert caught.value.reason == Reason.IMAGE_NOT_FOUND
        registry.stop()
        with pytest.raises(Transient) as unreachable:
            client().tags(where, registry.registries())
        assert unreachable.value.reason == Reason.REGISTRY_UNREACHABLE
        registry.start()
        assert client().tags(where, registry.registries()) == ("1.0.0",)
