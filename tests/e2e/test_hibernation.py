"""A component that nobody calls has no container; the next calls bring it back, and none of them fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.support.platform import ECHO, Module, Platform, Reply

CALLS = 20


def test_sleeps_while_nobody_calls_and_wakes_up_for_all_who_do(
    platform: Platform, module: Module, app: str
) -> None:
    first = module.served(ECHO, hibernation={"idleAfter": "2s"}).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    platform.until(lambda: not platform.containers(app))
    platform.until(lambda: ready_reason(platform, app) == "Hibernating")
    assert platform.condition(app, "Ready")["status"]

    for _ in range(2):  # waking up once more is like the first time
        replies = at_once(platform, app)
        assert [(reply.status, reply.body) for reply in replies if reply.status != 200] == []
        assert {reply.json["outputs"][0]["data"] for reply in replies} == {"1"}
        platform.until(lambda: not platform.containers(app))

    started = [e["message"] for e in platform.events(app) if e["reason"] == "Started"]
    assert ["asleep" in message for message in started] == [False, True, True]
    (component,) = platform.status(app)["components"]
    assert component["restarts"] == []


def test_a_version_that_cannot_start_leaves_the_one_asleep_in_service(
    platform: Platform, module: Module, app: str
) -> None:
    first = module.served(ECHO, hibernation={"idleAfter": "1s"}).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    platform.until(lambda: not platform.containers(app))

    module.served("raise SystemExit('broken')", version="2", hibernation={"idleAfter": "1s"}).push()
    platform.poke(app)
    platform.until(lambda: platform.condition(app, "Degraded"))
    platform.until(lambda: not platform.containers(app))
    reply = platform.predict(app)
    assert (reply.status, reply.json["outputs"][0]["data"]) == (200, "1")


def at_once(platform: Platform, app: str) -> list[Reply]:
    with ThreadPoolExecutor(CALLS) as threads:
        return list(threads.map(lambda _: platform.predict(app), range(CALLS)))


def ready_reason(platform: Platform, app: str) -> str:
    (component,) = platform.status(app)["components"]
    return next((c["reason"] for c in component["conditions"] if c["type"] == "Ready"), "")
