"""What is declared and not run yet is said, and does not keep the rest from running."""

from __future__ import annotations

from controller.domain.conditions import ConditionType
from tests.unit.reconcile.scene import Scene, manifest, ml

STAGE = {"name": "train", "image": {"existingImageName": "demo:1"}}


def test_what_has_no_effect_is_a_warning(scene: Scene) -> None:
    scene.connect()
    scene.push(
        ml(),
        manifest("ExperimentPipeline", "train", stages=[STAGE]),
        manifest("APIComponent", "runs", pipelines={}),
    )
    assert scene.run().name == "Ready"
    warning = scene.condition(ConditionType.WARNING)
    assert warning is not None
    told = [line.partition(":")[0] for line in warning.message.splitlines()]
    assert told == ["ExperimentPipeline train", "APIComponent runs"]
