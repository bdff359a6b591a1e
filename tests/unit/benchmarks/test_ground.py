"""The module that benchmarks deploy, in its full size: the platform that they start takes it."""

from __future__ import annotations

import json

from benchmarks.environment import LIMITS, adder
from benchmarks.idle import COMPONENTS
from controller.config import DefaultLimits
from controller.domain.apps.spec import PlatformAppSpec
from controller.domain.names import AppName, RepositoryName
from controller.manifests.build import examine
from controller.ports import SourceFile
from tests.support.platform import API_VERSION
from tests.support.specs import make


def test_the_platform_takes_as_many_components_as_are_measured() -> None:
    documents = [
        {
            "apiVersion": API_VERSION,
            "kind": "MLComponent",
            "metadata": {"name": f"adder-{n}"},
            "spec": adder("x:1", 0),
        }
        for n in range(COMPONENTS)
    ]
    files = [SourceFile(f"{n}.yaml", json.dumps(document).encode()) for n, document in enumerate(documents)]
    app = make(PlatformAppSpec, AppName("bench"), RepositoryName("bench"))
    limits = DefaultLimits(app_cpus=float(LIMITS["appCpus"]))
    assert [str(problem) for problem in examine(files, app, False, limits).problems] == []
