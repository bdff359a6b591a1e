"""Checks of pipelines: their variables, files and boxes fit together, and nothing waits for itself. The list of all
checks (checks.py) has them."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from controller.domain.apps.mounts import MOUNT, nested, unmountable
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.storage.keys import FileKeyInvalid, parse_path
from controller.manifests.commit import CheckedCommit
from controller.manifests.components import names, spec_of
from controller.manifests.reader import ManifestDocument, nearest
from controller.yaml_documents import Path


def open_variables(pipeline: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Variables that a caller must fill, and variables that stages output."""
    stages = pipeline["stages"]
    outputs = frozenset(name for stage in stages for name in names(stage.get("outputs", [])))
    inputs = frozenset(name for stage in stages for name in names(stage.get("inputs", [])))
    mounted = {var["name"] for var in pipeline.get("vars", []) if "mountFrom" in var}
    return inputs - outputs - mounted, outputs


def files_without_box(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report pipelines without a connected box whose callers would pass a file or ask for an output."""
    boxless = {
        document.name: document
        for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE)
        if not spec_of(document).get("connectedBoxes")
    }
    for document in commit.of(ComponentKind.API_COMPONENT):
        target = document.get("spec", "experimentPipeline", "name")
        if isinstance(target, str) and target in boxless:
            yield from _api_files_without_box(document, boxless[target])
    begun = begun_here(commit)
    for name, document in boxless.items():
        for path, message in outputs_without_box(document) if name in begun else ():
            yield document.problem(path, message)


def begun_here(commit: CheckedCommit) -> frozenset[str]:
    """Names of the pipelines that are run on the platform: by callers, by the clock, or after another. Others are for
    `prichal run-local`, which needs no box."""
    pipelines = {document.name: document for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE)}
    apis = commit.of(ComponentKind.API_COMPONENT)
    if any("pipelines" in spec_of(api) for api in apis):
        return frozenset(pipelines)
    begun = {api.get("spec", "experimentPipeline", "name") for api in apis}
    begun |= {name for name, document in pipelines.items() if "schedule" in spec_of(document)}
    left = [name for name in begun if name in pipelines]
    while left:
        after = pipelines[left.pop()].get("spec", "continueWith", "pipeline")
        if after in pipelines and after not in begun:
            begun.add(after)
            left.append(after)
    return frozenset(name for name in begun if name in pipelines)


def _api_files_without_box(
    document: ManifestDocument, pipeline: ManifestDocument
) -> Iterator[ManifestProblem]:
    described = spec_of(document)["apiSpec"]
    open_inputs, outputs = open_variables(spec_of(pipeline))
    remedy = Localizable("connect one with 'connectedBoxes' of pipeline {pipeline!r}", pipeline=pipeline.name)
    for i, raw in enumerate(described.get("inputs", [])):
        only_files = raw["type"]["datatypes"] == ["FILE"]
        if only_files and raw["name"] in open_inputs:
            message = Localizable(
                "{raw!r} is a FILE, and there is no box that it could lie in", raw=raw["name"]
            )
            path = ("spec", "apiSpec", "inputs", i, "name")
            yield document.problem(
                path,
                Localizable("{message}: {remedy}, or give it another 'type'", message=message, remedy=remedy),
            )
    handed_on = outputs - offered_variables(spec_of(pipeline))
    for i, name in enumerate(names(described.get("outputs", []))):
        if name in handed_on and "publishTo" not in _variable(pipeline, name):
            message = Localizable(
                "{name!r} has no box to go to, so that nobody could ask for it: {remedy}",
                name=name,
                remedy=remedy,
            )
            yield document.problem(("spec", "apiSpec", "outputs", i, "name"), message)


def _variable(pipeline: ManifestDocument, name: str) -> Mapping[str, Any]:
    return next((var for var in spec_of(pipeline).get("vars", []) if var["name"] == name), {})


def offered_variables(pipeline: Mapping[str, Any]) -> frozenset[str]:
    """Outputs that every run gives to its caller: no stage takes them in, and no box of the module gets them."""
    taken = {name for stage in pipeline["stages"] for name in names(stage.get("inputs", []))}
    published = {var["name"] for var in pipeline.get("vars", []) if "publishTo" in var}
    return open_variables(pipeline)[1] - taken - published


def variables(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Check that stages use declared variables, and that each has one source."""
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        declared = {var["name"]: var for var in spec_of(document).get("vars", [])}
        filled: dict[str, str] = {
            name: Localizable("its box") for name, var in declared.items() if "mountFrom" in var
        }
        for s, stage in enumerate(spec_of(document)["stages"]):
            for field in ("inputs", "outputs"):
                for i, name in enumerate(names(stage.get(field, []))):
                    if name not in declared:
                        path = ("spec", "stages", s, field, i, "name")
                        message = Localizable(
                            "'vars' has no {name!r}{nearest}", name=name, nearest=nearest(name, declared)
                        )
                        yield document.problem(path, message)
            for i, name in enumerate(names(stage.get("outputs", []))):
                if name in filled:
                    path = ("spec", "stages", s, "outputs", i, "name")
                    yield document.problem(
                        path,
                        Localizable("{name!r} is filled by {filled} already", name=name, filled=filled[name]),
                    )
                filled.setdefault(name, Localizable("stage {stage!r}", stage=stage["name"]))


def publications(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report publications that no stage outputs, or that conflict with each other: pipelines may take turns at one
    place, but one never lies in another."""
    places: list[tuple[str, str, str, str]] = []  # box, path, pipeline, variable
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        outputs = open_variables(spec_of(document))[1]
        for i, var in enumerate(spec_of(document).get("vars", [])):
            if "publishTo" not in var:
                continue
            name, box, path = var["name"], var["publishTo"]["box"], var["publishTo"]["path"]
            if name not in outputs:
                message = Localizable(
                    "no stage outputs {name!r}: only what a stage outputs can be published", name=name
                )
                yield document.problem(("spec", "vars", i, "publishTo"), message)
            if near := next((p for p in places if p[0] == box and _overlap(p, path, document.name)), None):
                where = "" if near[2] == document.name else Localizable(" of pipeline {near!r}", near=near[2])
                message = Localizable(
                    "overlaps {near!r}, where {near2!r}{where} is published: choose another path",
                    near=near[1],
                    near2=near[3],
                    where=where,
                )
                yield document.problem(("spec", "vars", i, "publishTo", "path"), message)
            places.append((box, path, document.name, name))


def _overlap(place: tuple[str, str, str, str], path: str, pipeline: str) -> bool:
    taking_turns = place[1] == path and place[2] != pipeline
    return not taking_turns and (path.startswith(place[1]) or place[1].startswith(path))


def mount_points(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Check that no variable is mounted over paths that commands or the platform need, or over another
    variable of a stage."""
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        spec = spec_of(document)
        stages = [
            {name for field in ("inputs", "outputs") for name in names(stage.get(field, []))}
            for stage in spec["stages"]
        ]
        taken: dict[str, str] = {}
        for i, var in enumerate(spec.get("vars", [])):
            name, path = var["name"], ("spec", "vars", i, "mountTo")
            place = posixpath.normpath(var.get("mountTo", f"{MOUNT}/{name}"))
            if why := unmountable(name, place):
                message = Localizable(
                    "nothing can be mounted at {place}, since {why}: choose another path, such as /work/{name}",
                    place=place,
                    why=why,
                    name=name,
                )
                yield document.problem(path, message)
                continue
            together = {other for stage in stages if name in stage for other in stage}
            for other, there in taken.items():
                if there == place:
                    yield document.problem(
                        path,
                        Localizable("{other!r} is mounted there already: choose another path", other=other),
                    )
                elif other in together and nested(there, place):
                    message = Localizable(
                        "{other!r} is mounted at {there}, and neither may lie in the other: choose another path",
                        other=other,
                        there=there,
                    )
                    yield document.problem(path, message)
            taken.setdefault(name, place)


def box_paths(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report paths in boxes that cannot be names of files."""
    for document in commit.documents:
        places: list[Path] = [("spec", "mlService", "modelPath")]
        for i, _ in enumerate(spec_of(document).get("vars", [])):
            places += [("spec", "vars", i, field, "path") for field in ("mountFrom", "publishTo")]
        for place in places:
            if (path := document.get(*place)) is None:
                continue
            try:
                parse_path(str(path))
            except FileKeyInvalid as error:
                message = Localizable(
                    "{path!r} cannot be a path in a box, since {error}: write it as 'folder/file' or 'folder/'",
                    path=path,
                    error=error,
                )
                yield document.problem(place, message)


def stage_cycles(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        stages = spec_of(document)["stages"]
        makers = {name: stage["name"] for stage in stages for name in names(stage.get("outputs", []))}
        graph = {s["name"]: {makers[v] for v in names(s.get("inputs", [])) if v in makers} for s in stages}
        for cycle in cycles(graph):
            path = ("spec", "stages", [s["name"] for s in stages].index(cycle[0]), "inputs")
            message = Localizable(
                "stages wait for each other: {names}; a stage's input must come from before it",
                names=" → ".join(cycle),
            )
            yield document.problem(path, message)


def pipeline_cycles(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    documents = {document.name: document for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE)}
    graph: dict[str, set[str]] = {name: set() for name in documents}
    for name, document in documents.items():
        after = document.get("spec", "continueWith", "pipeline")
        if isinstance(after, str) and after in graph:
            graph[after].add(name)
    for cycle in cycles(graph):
        message = Localizable("pipelines would start each other for ever: {names}", names=" → ".join(cycle))
        yield documents[cycle[0]].problem(("spec", "continueWith", "pipeline"), message)


def component_cycles(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    for document, cycle in dependency_cycles(commit.of(ComponentKind.ML_COMPONENT)):
        message = Localizable(
            "components wait for each other: {names}; none of them would ever start", names=cycle
        )
        yield document.problem(("spec", "dependsOn"), message)


def dependency_cycles(documents: Iterable[ManifestDocument]) -> Iterator[tuple[ManifestDocument, str]]:
    """Yield a document of each cycle of `dependsOn`, and the names in it. Names that are not there do not count."""
    named = {document.name: document for document in documents}
    graph = {
        name: [before for before in spec_of(document).get("dependsOn", []) if before in named]
        for name, document in named.items()
    }
    for cycle in cycles(graph):
        yield named[cycle[0]], " → ".join(cycle)


def cycles(predecessors: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Return one cycle of each strongly connected component, from its smallest name back to itself."""
    graph = {name: sorted(before) for name, before in sorted(predecessors.items())}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            ring: list[str] = error.args[1][:-1]
            start = ring.index(min(ring))
            yield [*ring[start:], *ring[:start], ring[start]]
            graph = {
                name: [b for b in before if b not in ring]
                for name, before in graph.items()
                if name not in ring
            }
        else:
            return


def outputs_without_box(document: ManifestDocument) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Return the outputs of a pipeline that has no box, with what is wrong."""
    offered = offered_variables(spec_of(document))
    for s, stage in enumerate(spec_of(document)["stages"]):
        for i, name in enumerate(names(stage.get("outputs", []))):
            if name in offered:
                path = ("spec", "stages", s, "outputs", i, "name")
                message = Localizable(
                    "{name!r} has no box to go to, so that each run would lose it", name=name
                )
                yield (
                    path,
                    Localizable(
                        "{message}: connect one with 'connectedBoxes', or use 'publishTo'", message=message
                    ),
                )
