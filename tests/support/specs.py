"""Specifications with the defaults of the manifests' schemas in the fields that a test does not care about.

They come from manifests that say as little as possible (`MODULE`, `PLATFORM`), so that no default stands in tests
either. `tests/unit/manifests/test_defaults.py` changes each default of the schemas and builds these manifests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import TypeVar

from controller.config import DefaultLimits, Settings
from controller.domain.apps.spec import undeclared_app
from controller.domain.names import AppName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.manifests import load_app, load_platform
from controller.ports import SourceFile
from controller.reconcile.runnable_pipelines import runnable, runnable_stage

T = TypeVar("T")

VERSION = "apiVersion: unified-platform.cs.hse.ru/v1"
#: All mappings that may be left out and whose fields have defaults are there; no field with a default is.
MODULE = f"""
{VERSION}
kind: MLComponent
metadata: {{name: classify}}
spec:
  image: {{build: {{}}}}
  mlService:
    inference: app:predict
    modelBox: userdata
    modelPath: model
    smokeTest: {{input: smoke.json, output: reply.json}}
  connectedBoxes: [{{name: userdata}}]
---
{VERSION}
kind: MLComponent
metadata: {{name: batched}}
spec:
  image: {{existingImageName: demo:1}}
  mlService: {{inference: app:predict, batch: {{}}}}
---
{VERSION}
kind: MLComponent
metadata: {{name: own}}
spec:
  image: {{existingImageName: demo:1, follow: {{pattern: "[0-9]+"}}}}
  mlService: {{server: own}}
---
{VERSION}
kind: ExperimentPipeline
metadata: {{name: train}}
spec:
  connectedBoxes: [{{name: userdata}}]
  vars: [{{name: data}}]
  stages: [{{name: fit, image: {{existingImageName: demo:1, follow: {{pattern: "[0-9]+"}}}}, inputs: [{{name: data}}]}}]
---
{VERSION}
kind: ExperimentPipeline
metadata: {{name: nightly}}
spec:
  schedule: {{cron: 0 3 * * *}}
  stages: [{{name: fit, image: {{build: {{}}}}}}]
---
{VERSION}
kind: APIComponent
metadata: {{name: train}}
spec:
  experimentPipeline: {{name: train}}
  restfulApi: {{path: train, cors: {{origins: [https://lab.example.org]}}}}
  apiSpec: {{inputs: [{{name: data}}]}}
---
{VERSION}
kind: DataBox
metadata: {{name: userdata}}
spec: {{s3DefaultStorage: {{}}}}
---
{VERSION}
kind: Notification
metadata: {{name: team}}
spec: {{email: {{to: [team@example.org]}}}}
"""
PLATFORM = f"""
{VERSION}
kind: Repository
metadata: {{name: demo}}
spec: {{url: https://git.example.org/demo.git, ref: {{branch: main}}}}
---
{VERSION}
kind: PlatformApp
metadata: {{name: demo}}
spec:
  repository: demo
  deploy: {{windows: [{{cron: "* * * * *", duration: 1d}}]}}
  previews: {{limits: {{cpus: 1, memory: 1Gi, storage: 1G, containers: 1, gpus: 0}}}}
"""


def make(kind: type[T], *first: object, **changes: object) -> T:
    """Return a specification as a manifest gives it that says only this. `first` are the first fields, in order."""
    parts = fields(kind)  # type: ignore[arg-type]
    needed = {part.name: getattr(_prototypes()[kind], part.name) for part in parts if part.default is MISSING}
    given = {**dict(zip([part.name for part in parts], first, strict=False)), **changes}
    return kind(**{**needed, **given})


@cache
def _prototypes() -> dict[type, object]:
    app = load_app(_file(MODULE), undeclared_app(AppName("demo")), False, DefaultLimits())
    found: dict[type, object] = {}
    for part in _parts((app, load_platform(_file(PLATFORM), Settings()))):
        found.setdefault(type(part), part)
    pipeline = app.pipelines[-1]
    stage = pipeline.stages[0]
    found[Stage] = runnable_stage(stage, "demo:1")
    found[Pipeline] = runnable(pipeline, app.app, "", ())
    return found


def _file(text: str) -> tuple[SourceFile, ...]:
    return (SourceFile("f.yaml", text.encode()),)


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, tuple):
        for item in value:
            yield from _parts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in fields(value):
            yield from _parts(getattr(value, field.name))
