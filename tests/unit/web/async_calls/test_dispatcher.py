from __future__ import annotations

from typing import Any

import pytest

from controller.web.async_calls.dispatcher import slots_of, versions_of
from controller.web.gateway.router import Router
from tests.support.gateway import make_route

TWO = ("127.0.0.1:1", "127.0.0.1:2")


@pytest.mark.parametrize(
    ("fields", "slots"),
    [
        ({}, 1),
        ({"concurrency": 4}, 3),  # one is left for callers who wait
        ({"concurrency": 4, "upstreams": TWO}, 6),
        ({"upstreams": ()}, None),  # it heals: calls wait in the queue
        ({"upstreams": (), "asleep": True}, 1),  # the call wakes it up
        ({"upstreams": (), "asleep": True, "stalled": "its app is suspended"}, None),
        ({"stalled": "its app is suspended"}, 1),  # what runs takes calls
        ({"any_path": True}, None),
    ],
)
def test_how_many_calls_a_component_takes(fields: dict[str, Any], slots: int | None) -> None:
    route = make_route(**fields)
    assert slots_of(Router.build(1, [route])).get((route.app, route.component)) == slots


def test_new_calls_go_to_the_version_in_service() -> None:
    route = make_route()
    assert versions_of(Router.build(1, [route])) == {(route.app, route.component): route.fingerprint}
