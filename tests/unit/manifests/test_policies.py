"""Policies of the operator: every place of a commit that breaks one is named."""

from __future__ import annotations

import pytest

from controller.config import DefaultLimits
from controller.domain.apps.policies import Policies
from controller.domain.apps.spec import undeclared_app
from controller.domain.errors import ManifestInvalid
from controller.domain.names import AppName
from controller.manifests import load_app
from controller.ports import SourceFile

VERSION = "apiVersion: unified-platform.cs.hse.ru/v1"
MODULE = f"""{VERSION}
kind: MLComponent
metadata: {{name: team-scorer}}
spec:
  image: {{existingImageName: evil.example/tool:1}}
  mlService: {{inference: app:predict}}
  resources: {{cpus: 1}}
---
{VERSION}
kind: ExperimentPipeline
metadata: {{name: nightly}}
spec:
  stages:
    - name: fit
      image: {{build: {{args: {{HTTP_PROXY: x, PIP: y}}}}}}
      resources: {{cpus: 1, memory: 1Gi}}
    - {{name: test, image: {{existingImageName: "python:3.12"}}}}
"""
STRICT = Policies(
    images=("docker.io/library/*",),
    require_resources=True,
    forbidden_build_args=("*_PROXY",),
    names="team-.+",
)


def problems(policies: Policies, text: str = MODULE) -> list[str]:
    file = SourceFile("m.yaml", text.encode())
    try:
        load_app((file,), undeclared_app(AppName("demo")), True, DefaultLimits(), policies=policies)
    except ManifestInvalid as error:
        return [str(problem) for problem in error.problems]
    return []


def test_each_place_is_named() -> None:
    assert problems(STRICT) == [
        (
            "m.yaml:5:11: spec.image.existingImageName: this platform takes no image 'evil.example/tool:1': "
            "it must come from docker.io/library/*"
        ),
        "m.yaml:7:3: spec.resources: this platform wants resources to be stated: memory is missing",
        "m.yaml:11:12: metadata.name: 'nightly' is no name that this platform allows: it must match team-.+",
        "m.yaml:15:30: spec.stages[0].image.build.args.HTTP_PROXY: this platform allows no build argument 'HTTP_PROXY'",
        (
            "m.yaml:17:7: spec.stages[1].resources: this platform wants resources to be stated: "
            "cpus and memory are missing"
        ),
    ]


def test_without_policies_all_is_right() -> None:
    assert problems(Policies()) == []


@pytest.mark.parametrize(
    "policies",
    [
        Policies(images=("*",)),
        Policies(forbidden_build_args=("NOTHING",)),
        Policies(names=".*"),
    ],
)
def test_what_keeps_to_a_policy_is_right(policies: Policies) -> None:
    assert problems(policies) == []


CACHED = f"""{VERSION}
kind: MLComponent
metadata: {{name: scorer}}
spec:
  image:
    build:
      cacheFrom:
        - python:3.12
        - ci.example/team/x
  mlService: {{inference: app:predict}}
"""


@pytest.mark.parametrize(
    ("policies", "lines"),
    [
        (Policies(), [8, 9]),
        (Policies(cache_images=("ci.example/*",)), [8]),
        (Policies(cache_images=("*",)), []),
        (Policies(images=("ci.example/*",), cache_images=("*",)), [8]),
    ],
)
def test_images_that_serve_as_cache_are_named_by_the_operator(policies: Policies, lines: list[int]) -> None:
    found = problems(policies, CACHED)
    assert [int(text.split(":")[1]) for text in found] == lines
    assert all("the operator has to name it in policies.cacheImages" in text for text in found)
