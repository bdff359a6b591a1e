"""From a bad version back to the good one and on again, on everything real and under load."""

from __future__ import annotations

from tests.support.platform import ECHO, Callers, Module, Platform


def reasons(platform: Platform, app: str) -> list[str]:
    return [event["reason"] for event in platform.events(app)]


def test_back_under_load_held_and_on_with_the_next_commit(
    platform: Platform, module: Module, app: str
) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    second = module.served(ECHO, version="2").push()
    platform.poke(app)
    platform.until_ready(app, second)
    builds = reasons(platform, app).count("Building")

    with Callers(platform, app, 4) as callers:
        platform.until(lambda: callers.answered("2") > 20)
        platform.prichal("rollback", app, "--wait")
        platform.until(lambda: callers.answered("1") > 20)
        assert reasons(platform, app).count("Building") == builds, "something is built again"
        passes = platform.passes(app)
        platform.poke(app)
        platform.until(lambda: platform.passes(app) > passes)
        assert platform.predict(app).json["outputs"][0]["data"] == "1", "a poll has undone it"
        third = module.served(ECHO, version="3").push()
        platform.poke(app)
        platform.until(lambda: callers.answered("3") > 20)
    platform.until_ready(app, third)
    assert callers.failures == []
    events = platform.events(app)
    told = [event["message"] for event in events if event["reason"] in ("RolledBack", "RollbackEnded")]
    assert told[0].startswith(f"rolled back from {second[:12]} to {first[:12]} by host:")
    assert told[1] == f"{first[:12]} is no longer held"
    assert not platform.condition(app, "RolledBack")


#: Its second version is ready, and fails every call.
FAILING = ECHO.replace(
    "return {",
    """if os.environ["VERSION"] == "2":
        raise RuntimeError("this version was never tried")
    return {""",
)


def test_a_version_that_fails_its_calls_goes_back_by_itself(
    platform: Platform, module: Module, app: str
) -> None:
    rollout = {"watch": "10m", "maxErrors": "5%"}
    first = module.served(FAILING, rollout=rollout).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    second = module.served(FAILING, version="2", rollout=rollout).push()
    platform.poke(app)
    platform.until_ready(app, second)
    with Callers(platform, app, 2) as callers:
        platform.until(lambda: len(callers.failures) > 20)
        platform.until(lambda: callers.answered("1") > 20)
    assert all("500" in str(failure) for failure in callers.failures)
    platform.until(lambda: platform.condition(app, "RolledBack"))
    (told,) = [event["message"] for event in platform.events(app) if event["reason"] == "RolloutFailed"]
    assert told.endswith(f", and 5% may fail: going back to {first[:12]}")
    third = module.served(FAILING, version="3", rollout=rollout).push()
    platform.poke(app)
    platform.until_ready(app, third)
    assert not platform.condition(app, "RolledBack")
