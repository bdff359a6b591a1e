"""Drift: what is done to containers by hand is undone; what cannot be started says so."""

from __future__ import annotations

import pytest

from tests.support.engines import BASE_IMAGE
from tests.support.platform import ECHO, Module, Platform


@pytest.mark.parametrize("deed", ["kill", "stop", "remove"])
def test_container_ended_by_hand_comes_back(platform: Platform, module: Module, app: str, deed: str) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, app)
    platform.until_ready(app, first)
    (before,) = platform.containers(app)

    if deed == "remove":
        platform.docker.remove_container(before["Id"], force=True)
    else:
        getattr(platform.docker, deed)(before["Id"])
    platform.until(
        lambda: [c["Id"] for c in platform.containers(app, running=True)] not in ([], [before["Id"]])
    )
    platform.until(lambda: platform.predict(app).status == 200)
    platform.until_ready(app, first)
    assert len(platform.containers(app)) == 1


def test_crash_loop_ends_in_a_clear_state(platform: Platform, module: Module, app: str) -> None:
    dies_at_work = ECHO.replace("return {", "os.kill(os.getppid(), 9); return {")
    first = module.served(dies_at_work).push()
    platform.connect(module, app)
    platform.until_ready(app, first)

    def crash() -> bool:
        platform.predict(app)  # kills its own service
        return bool(platform.condition(app, "Stalled"))

    platform.until(crash, limit=110)
    assert platform.condition(app, "Stalled")["reason"] == "CrashLoop"


@pytest.mark.parametrize(
    ("what", "reason", "words"),
    [
        (("no.such.invalid/image:1", {"inference": "app:predict"}), "RegistryUnreachable", "no.such.invalid"),
        ((BASE_IMAGE, {"inference": "absent.module:predict"}), "Exited", "absent"),
        ((BASE_IMAGE, {"server": "own"}), "Exited", "exited with code 0"),
    ],
    ids=["image that does not exist", "module that cannot be imported", "command that exits"],
)
def test_what_cannot_start_says_why(
    platform: Platform, module: Module, app: str, what: tuple[str, dict[str, str]], reason: str, words: str
) -> None:
    image, service = what
    module.component("model", image={"existingImageName": image}, mlService=service).api().push()
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Stalled") or platform.condition(app, "ApplyFailed"))
    condition = platform.condition(app, "Stalled") or platform.condition(app, "ApplyFailed")
    assert words in condition["message"]
    assert condition["reason"] == reason
    platform.until(lambda: not platform.containers(app))


def test_image_without_python_is_told_what_to_do(platform: Platform, module: Module, app: str) -> None:
    module.write("Dockerfile", "FROM scratch\nCOPY README.md /\n").write("README.md", "nothing else")
    spec = {"image": {"build": {"context": "."}}, "mlService": {"inference": "app:predict"}}
    module.component("model", **spec).push()
    platform.connect(module, app)
    platform.until(lambda: platform.condition(app, "Stalled"))
    condition = platform.condition(app, "Stalled")
    assert condition["reason"] == "NoPython"
    assert "server: own" in condition["message"]
