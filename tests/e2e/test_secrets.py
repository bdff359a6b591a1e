"""A Secret that a person sets: a component waits for it and starts, each change is one rollout without a lost call, and
no value is on the disk or in a log."""

from __future__ import annotations

from typing import Any

from tests.support.platform import Callers, Module, Platform

TELL = '''
import os


def predict(inputs):
    """Say which secret this process has.

    :param outputs.length: its length
    :type outputs.length: INT32
    :param outputs.version: of the module
    :type outputs.version: str
    """
    return {"length": [len(os.environ["TOKEN"])], "version": os.environ["VERSION"]}
'''
FIRST, SECOND = "first-value-of-the-secret", "second-value-of-the-secret-is-longer"
USES: dict[str, Any] = {"envFrom": [{"secretRef": {"name": "keys"}}]}


def length(platform: Platform, app: str) -> int:
    outputs = platform.predict(app).json["outputs"]
    found = next(output["data"] for output in outputs if output["name"] == "length")
    return int(found[0] if isinstance(found, list) else found)


def test_from_waiting_to_one_rollout_for_each_change(platform: Platform, module: Module, app: str) -> None:
    revision = module.served(TELL, **USES).push()
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Ready").get("reason") == "AwaitingSecret")
    assert f"prichal secret set {app} keys KEY" in platform.condition(app, "Ready")["message"]
    assert platform.containers(app) == []

    told = platform.prichal("secret", "set", app, "keys", "TOKEN", input=FIRST).stdout
    assert "set TOKEN (by host:" in told
    platform.until_ready(app, revision)
    assert length(platform, app) == len(FIRST)
    (before,) = platform.containers(app, running=True)

    file = platform.home / "pem"
    file.write_text("line one of a key\nline two of it\n")
    with Callers(platform, app, 2) as callers:
        platform.prichal("secret", "set", app, "keys", "TOKEN=-", f"PEM={file}", input=f"{SECOND}\n")
        platform.until(lambda: length(platform, app) == len(SECOND))
        platform.until(lambda: len(platform.containers(app)) == 1)
    assert callers.failures == []
    (after,) = platform.containers(app, running=True)
    assert after["Id"] != before["Id"]
    env = dict(each.split("=", 1) for each in platform.docker.inspect_container(after["Id"])["Config"]["Env"])
    assert (env["TOKEN"], env["PEM"]) == (SECOND, "line one of a key\nline two of it\n")
    starts = sum(event["reason"] == "Started" for event in platform.events(app))

    assert (
        "has these values already"
        in platform.prichal("secret", "set", app, "keys", "TOKEN", input=SECOND).stdout
    )
    passes = platform.passes(app)
    platform.poke(app)
    platform.until(lambda: platform.passes(app) > passes)
    assert sum(event["reason"] == "Started" for event in platform.events(app)) == starts
    assert platform.containers(app, running=True)[0]["Id"] == after["Id"]

    shown = platform.prichal("secret", "ls", app, "-o", "json").stdout
    texts = [
        shown,
        platform.log.read_text(errors="replace"),
        str(platform.events(app)),
        str(platform.status(app)),
    ]
    assert not any(value in text for text in texts for value in (FIRST, SECOND))
    for path in (platform.home / "state").rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not any(value.encode() in content for value in (FIRST, SECOND)), path

    platform.disconnect(app)
    platform.prichal("approve", "@platform")  # it was the last app
    platform.until(lambda: platform.containers(app) == [])
    platform.until(lambda: platform.get(f"/-/apps/{app}/secrets").status == 404)
