"""What manifests may declare already and this release does not run yet: said in the status, never passed over.

A capability that comes takes its lines out of here.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.domain.spec import AppSpec, PipelinesTarget, PipelineTarget


def warnings(spec: AppSpec) -> Iterator[str]:
    """One line for each declaration that has no effect."""
    for pipeline in spec.pipelines:
        yield f"ExperimentPipeline {pipeline.name}: it was checked, but this release does not run pipelines"
    for api in spec.apis:
        if isinstance(api.target, PipelineTarget | PipelinesTarget):
            yield f"APIComponent {api.name}: it was checked, but this release does not run pipelines"
