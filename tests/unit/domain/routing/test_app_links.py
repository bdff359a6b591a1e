"""What people are shown to open and to call."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from controller.domain.routing.app_links import PublicAddress, link_documents, link_lines
from controller.domain.runs.run import RunState, new_run
from tests.support.gateway import make_api, make_route, make_service
from tests.support.runs import all_pipelines, make_pipeline, one_pipeline
from tests.support.wire_format import deviations

HERE = PublicAddress("https://ml.example.org")


def test_a_component_is_called_by_one_command() -> None:
    (link,) = link_documents(HERE, [make_route(make_api("image"))], [], {})
    assert (link["kind"], link["open"]) == ("component", "https://ml.example.org/demo/image/docs")
    words = shlex.split(str(link["curl"]))
    assert words[:3] == ["curl", "-s", "https://ml.example.org/demo/image/predict"]
    assert words[-1] == '{"inputs": []}'
    assert list(deviations(link)) == []


def test_what_is_not_published_is_not_shown() -> None:
    hidden = replace(make_api("image"), published=False)
    assert link_documents(HERE, [make_route(hidden)], [], {}) == []


def test_an_own_server_is_opened_itself() -> None:
    (link,) = link_documents(HERE, [make_route(make_api("image"), any_path=True)], [], {})
    assert (link["kind"], link["open"]) == ("server", "https://ml.example.org/demo/image/")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"users": (("anna", "hash"),)}, ["-u", "NAME"]),
        ({"tokens": (("ci", "sha256:00"),)}, ["-H", "Authorization: Bearer $TOKEN"]),
        ({"oidc_issuer": "https://issuer.example.org"}, ["-H", "Authorization: Bearer $TOKEN"]),
    ],
)
def test_a_protected_api_says_what_to_fill_in(fields: dict[str, object], words: list[str]) -> None:
    api = make_api("image", **fields)
    (link,) = link_documents(HERE, [make_route(api)], [], {})
    assert shlex.split(str(link["curl"]))[2:4] == words
    assert "hash" not in str(link)


def test_services_and_the_last_run_of_a_pipeline() -> None:
    run = new_run("a1", make_pipeline(), 0.0).to(RunState.FAILED, 5.0)
    services = [one_pipeline(), all_pipelines(), make_service()]
    name = services[0].pipeline
    assert name is not None
    links = link_documents(HERE, [], services, {name: run})
    assert [link["kind"] for link in links] == ["pipeline", "pipelines", "files"]
    assert links[0]["lastRun"] == {
        "id": "a1",
        "state": "FAILED",
        "reason": "",
        "ended": "1970-01-01T00:00:05.000Z",
    }
    assert links[1]["lastRun"] is None
    lines = list(link_lines(links))
    assert lines[0].startswith(f"{name} (pipeline, last run FAILED): https://ml.example.org/demo/")
    assert all(line.startswith("  curl -s ") for line in lines[1::2])


def test_apps_with_hosts_of_their_own() -> None:
    address = PublicAddress("https://ml.example.org:8443", "apps.example.org")
    (link,) = link_documents(address, [make_route(make_api("image"))], [], {})
    assert str(link["open"]).startswith("https://demo.apps.example.org:8443/demo/image/")
