"""What is declared and not run yet is said, and does not keep the rest from running."""

from __future__ import annotations

from controller.domain.conditions import ConditionType
from tests.unit.reconcile.scene import APP, Scene, manifest, ml

STAGE = {"name": "train", "image": {"existingImageName": "demo:1"}}


def test_what_has_no_effect_is_a_warning(scene: Scene) -> None:
    scene.connect()
    scene.push(
        ml(connectedBoxes=[{"name": "data"}]),
        manifest("DataBox", "data", s3DefaultStorage={}),
        manifest("ExperimentPipeline", "train", stages=[STAGE]),
        manifest("APIComponent", "files", files={}),
    )
    assert scene.run().name == "Ready"
    warning = scene.condition(ConditionType.WARNING)
    assert warning is not None
    told = [line.partition(":")[0] for line in warning.message.splitlines()]
    assert told == ["ExperimentPipeline train", "DataBox data", "APIComponent files", "MLComponent classify"]


def test_a_component_without_its_model_is_not_started_and_its_neighbour_is(scene: Scene) -> None:
    scene.connect()
    scene.push(
        ml(
            "needy",
            connectedBoxes=[{"name": "weights"}],
            mlService={"inference": "app:predict", "modelBox": "weights", "modelPath": "model.onnx"},
        ),
        ml("modest"),
        manifest("DataBox", "weights", s3DefaultStorage={}),
    )
    assert scene.run().name == "Failed"
    assert [w.component for w in scene.engine.observe(APP).workloads] == ["modest"]
    stalled = scene.condition(ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "StorageUnsupported"
