"""What manifests may declare already and this release does not run yet: said in the status, never passed over.

A capability that comes takes its lines out of here.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.domain.errors import Stalled
from controller.domain.spec import AppSpec, MLComponentSpec, MLTarget


def warnings(spec: AppSpec) -> Iterator[str]:
    """One line for each declaration that has no effect."""
    for pipeline in spec.pipelines:
        yield f"ExperimentPipeline {pipeline.name}: it was checked, but this release does not run pipelines"
    for box in spec.boxes:
        yield f"DataBox {box.name}: it was checked, but this release has no storage"
    for api in spec.apis:
        if not isinstance(api.target, MLTarget):
            yield f"APIComponent {api.name}: it was checked, but this release publishes MLComponents alone"
    for component in spec.ml_components:
        if component.boxes:
            yield f"MLComponent {component.name}: connectedBoxes has no effect, this release has no storage"


def require_supported(component: MLComponentSpec) -> None:
    """Stalled `StorageUnsupported` for what cannot run: without its model a component would fail in obscure ways."""
    if component.model_box:
        message = (
            f"modelBox {component.model_box!r}: this release has no storage; put the model into the image"
        )
        raise Stalled("StorageUnsupported", message)
