"""What a fingerprint takes in, what it leaves out, and that it gives nothing away."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from controller.domain.apps.fingerprint import fingerprints
from controller.domain.apps.spec import (
    Batching,
    BoxLink,
    EnvVar,
    ExistingImage,
    MLComponentSpec,
    OwnServer,
    PlatformServer,
    Resources,
    Rollout,
    SmokeTest,
    Strategy,
    Webhook,
)
from controller.domain.secret import Secret
from tests.support.builders import spec
from tests.support.specs import make

KEY = b"k" * 32
ENV = (("THRESHOLD", Secret("0.5")), ("TOKEN", Secret("hunter2")))
BASE = spec(server=make(PlatformServer, "app:predict"))

#: Field of the spec → a change of it that a running container cannot take over.
CHANGES: dict[str, list[Any]] = {
    "read_only_root": [True],
    "server": [
        make(PlatformServer, "app:other"),
        make(PlatformServer, "app:predict", loader="app:load"),
        make(PlatformServer, "app:predict", concurrency=8),
        make(PlatformServer, "app:predict", queue=1),
        make(PlatformServer, "app:predict", openai="chat"),
        make(PlatformServer, "app:predict", timeout=5.0),
        make(PlatformServer, "app:predict", processes=2),
        make(PlatformServer, "app:predict", preload=True),
        make(PlatformServer, "app:predict", batch=make(Batching)),
        make(PlatformServer, "app:predict", batch=make(Batching, max_size=2)),
        make(OwnServer),
    ],
    "port": [9000],
    "smoke_test": [
        make(SmokeTest),
        make(SmokeTest, input="other.json"),
        make(SmokeTest, tolerance=0.5),
        make(SmokeTest, path="/v2"),
    ],
    "boxes": [(make(BoxLink, "data"),), (BoxLink("data", default=True),)],
    "model_box": ["weights"],
    "model_path": ["model.onnx"],
    "setup_timeout": [5.0],
    "resources": [
        make(Resources, cpus=2.0),
        make(Resources, memory=1),
        make(Resources, gpus=1),
        make(Resources, pids=1),
        make(Resources, shm=2**20),
    ],
}
#: Field → a change that happens around a container that goes on running, or that comes in by `image` and `env`.
AROUND = {
    "image": ExistingImage("demo:2"),
    "env": (EnvVar("A", "b"),),
    "env_from": ("keys",),
    "replicas": 3,
    "rollout": Rollout(Strategy.RECREATE, drain_timeout=1.0, max_errors=1.0),
    "idle_after": 600.0,
    "patience": 3.0,
    "idempotent": True,
    "follow_model": True,
    "package_registry": "pypi",
    "async_timeout": 1.0,
    "webhook": Webhook("hook"),
    "depends_on": ("tokenizer",),
}


def of(
    made: MLComponentSpec = BASE,
    image: str = "demo@sha256:1",
    env: object = ENV,
    key: bytes = KEY,
    model: str = "",
) -> tuple[str, ...]:
    return fingerprints(made, image, env, key, model)  # type: ignore[arg-type]


def test_every_field_of_a_component_is_either_in_it_or_around_it() -> None:
    assert {field.name for field in fields(MLComponentSpec)} == {"name", *CHANGES, *AROUND}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in CHANGES.items() for v in values])
def test_what_the_container_is_made_of_changes_it(name: str, value: Any) -> None:
    assert of(replace(BASE, **{name: value})) != of()


@pytest.mark.parametrize(("name", "value"), AROUND.items())
def test_what_happens_around_the_container_does_not(name: str, value: Any) -> None:
    assert of(replace(BASE, **{name: value})) == of()


def test_image_and_environment_change_it() -> None:
    others = [
        of(image="demo@sha256:2"),
        of(env=(("THRESHOLD", Secret("0.5")), ("TOKEN", Secret("hunter3")))),
        of(env=ENV[:1]),
        of(env=(("THRESHOLD", Secret("hunter2")), ("TOKEN", Secret("0.5")))),
    ]
    assert len({of(), *others}) == 5


def test_the_order_of_the_environment_does_not() -> None:
    assert of(env=ENV[::-1]) == of()


def test_it_cannot_be_computed_without_the_key() -> None:
    """Else a label would let anyone try passwords."""
    assert of(key=b"x" * 32) != of()
    assert "hunter2" not in "".join(of())


def test_it_stays_the_same_from_release_to_release() -> None:
    """Golden values: changing one restarts every container of every installation."""
    assert of() == (
        "1:0cda6f5a5e361f3c3fc4b8bcf770002f64b21fd5ed01825df20fb7d40b461139",
        "2:7eaf42d940873443a3d867f22690b7ccf9289ffd7c795fff80c217d94441b10f",
        "3-7eaf42d940873443a3d867f22690b7ccf9289ffd7c795fff80c217d94441",
    )


def test_a_component_with_a_model_has_no_version_that_knows_nothing_of_models() -> None:
    """Version 1 would take two contents of a model for the same."""
    one, other = of(model="11"), of(model="22")
    assert [version_of(text) for text in one] == [2, 3]
    assert one[0] not in (*other, *of())


def test_the_newest_version_is_last() -> None:
    versions = [version_of(text) for text in of()]
    assert versions == sorted(versions)


def version_of(text: str) -> int:
    return int(text.replace("-", ":").partition(":")[0])


def test_the_content_of_a_smoke_test_is_in_it() -> None:
    tested = replace(BASE, smoke_test=make(SmokeTest))
    found = {fingerprints(tested, "demo@sha256:1", ENV, KEY, "", digest) for digest in ("a", "b")}
    assert len(found) == 2
    assert fingerprints(BASE, "demo@sha256:1", ENV, KEY, "", "") == of()
