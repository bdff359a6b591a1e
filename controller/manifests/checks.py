"""What a schema cannot see: how the documents of a commit fit together, and how the commit fits its app.

Each check is a generator of Problems over one `Commit`; `CHECKS` is the list of all. They get documents that
passed their schema, and know the names of those that did not, so that one mistake is not reported twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from controller.config import DefaultLimits
from controller.documents import Path
from controller.domain.errors import Problem
from controller.domain.spec import MEBIBYTE, Kind, PlatformAppSpec
from controller.domain.units import render_size
from controller.manifests.components import api_path, box, names, resources, spec_of
from controller.manifests.reader import Document, nearest

#: Docker refuses containers with less.
MIN_MEMORY = 6 * MEBIBYTE

_PLATFORM_KINDS = (Kind.REPOSITORY, Kind.PLATFORM_APP)


@dataclass(frozen=True)
class Commit:
    """The documents of a commit and what they may refer to. `secrets` is None where the platform's side is not
    known (checking a folder by itself): what refers to it becomes a note instead of a problem."""

    documents: tuple[Document, ...]
    declared: Mapping[Kind, frozenset[str]]
    app: PlatformAppSpec
    secrets: frozenset[str] | None
    limits: DefaultLimits

    def of(self, kind: Kind) -> tuple[Document, ...]:
        return tuple(document for document in self.documents if document.kind is kind)


Check = Callable[[Commit], Iterator[Problem]]
T = TypeVar("T", int, float)


def identity(documents: Collection[Document], app: PlatformAppSpec) -> Iterator[Problem]:
    """Names, namespaces and kinds; for all documents, whatever else is wrong with them."""
    yield from duplicates(documents)
    for document in documents:
        if document.kind in _PLATFORM_KINDS:
            message = f"{document.kind} belongs into the platform folder, not into the module's repository"
            yield document.problem(["kind"], message)
        namespace = document.get("metadata", "namespace")
        if isinstance(namespace, str) and namespace != app.name:
            message = f"must be the app's name, {app.name!r}, or be left out; it is {namespace!r}"
            yield document.problem(["metadata", "namespace"], message)


def duplicates(documents: Collection[Document]) -> Iterator[Problem]:
    first: dict[tuple[Kind, str, object], Document] = {}
    for document in documents:
        scope = document.get("metadata", "namespace") if document.kind is Kind.SECRET else None
        key = (document.kind, document.name, str(scope))
        if document.name and key in first:
            place = f"{first[key].file}:{first[key].node.place(['metadata', 'name'])[0]}"
            message = f"there is another {document.kind} {document.name!r} in {place}: rename or remove one"
            yield document.problem(["metadata", "name"], message)
        first.setdefault(key, document)


# --- references -------------------------------------------------------------------------------------------------


def references(commit: Commit) -> Iterator[Problem]:
    """Boxes, pipelines and components that are named must be there."""
    for document, path, kind in _references(commit):
        name = str(document.get(*path))
        if name not in commit.declared[kind]:
            known = commit.declared[kind]
            message = f"the app has no {kind} {name!r}{nearest(name, known)}"
            yield document.problem(path, message)


def _references(commit: Commit) -> Iterator[tuple[Document, Path, Kind]]:
    for document in commit.documents:
        spec = spec_of(document)
        for i, _ in enumerate(spec.get("connectedBoxes", [])):
            yield document, ("spec", "connectedBoxes", i, "name"), Kind.DATA_BOX
        for i, var in enumerate(spec.get("vars", [])):
            for field in ("mountFrom", "publishTo"):
                if field in var:
                    yield document, ("spec", "vars", i, field, "box"), Kind.DATA_BOX
        for path, kind in (
            (("spec", "mlService", "modelBox"), Kind.DATA_BOX),
            (("spec", "mlComponent", "name"), Kind.ML_COMPONENT),
            (("spec", "experimentPipeline", "name"), Kind.EXPERIMENT_PIPELINE),
            (("spec", "continueWith", "pipeline"), Kind.EXPERIMENT_PIPELINE),
        ):
            if document.get(*path) is not None:
                yield document, path, kind


def outside_references(commit: Commit) -> Iterator[Problem]:
    """Secrets and package registries that are named must be there; some of them lie on the platform's side."""
    secrets = commit.declared[Kind.SECRET] | (commit.secrets or frozenset())
    registries = frozenset(registry.name for registry in commit.app.package_registries)
    unknown = "is not in this folder: the platform must have it"
    for document in commit.documents:
        for path in _secret_paths(document):
            name = str(document.get(*path))
            if name not in secrets:
                message = f"the app has no Secret {name!r}{nearest(name, secrets)}"
                yield document.problem(
                    path, message if commit.secrets is not None else f"the Secret {name!r} {unknown}"
                )
        path = ("spec", "mlService", "packageRegistryName")
        if (registry := document.get(*path)) is not None and registry not in registries:
            message = (
                f"the PlatformApp names no package registry {registry!r}{nearest(str(registry), registries)}"
            )
            yield document.problem(path, message if commit.secrets is not None else f"{registry!r} {unknown}")


def _secret_paths(document: Document) -> Iterator[Path]:
    for prefix, raw in _containers(document):
        for i, _ in enumerate(raw.get("envFrom", [])):
            yield (*prefix, "envFrom", i, "secretRef", "name")
    for way in ("basic", "token"):
        path = ("spec", "restfulApi", "auth", way, "credentials")
        if document.get(*path) is not None:
            yield path
    hook = ("spec", "webhook", "secret")
    if document.kind is Kind.EXPERIMENT_PIPELINE and document.get(*hook) is not None:
        yield hook


def _containers(document: Document) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The parts of a document that describe a container, with their paths."""
    if document.kind is Kind.ML_COMPONENT:
        yield ("spec",), spec_of(document)
    elif document.kind is Kind.EXPERIMENT_PIPELINE:
        for i, stage in enumerate(spec_of(document)["stages"]):
            yield ("spec", "stages", i), stage


# --- lists whose entries have names -----------------------------------------------------------------------------


def unique_names(commit: Commit) -> Iterator[Problem]:
    for document in commit.documents:
        for prefix, raw in _containers(document):
            yield from _repeated(document, (*prefix, "env"), raw.get("env", []))
        spec = spec_of(document)
        for field in ("connectedBoxes", "vars", "stages"):
            yield from _repeated(document, ("spec", field), spec.get(field, []), by=_variable_key)
        for field in ("inputs", "outputs"):
            entries = spec.get("apiSpec", {}).get(field, [])
            yield from _repeated(document, ("spec", "apiSpec", field), entries)


def _variable_key(name: str) -> str:
    """Names that would share UNIP_PIPELINE_<NAME> are the same."""
    return name.upper().replace("-", "_")


def _repeated(
    document: Document, path: Path, entries: list[Any], by: Callable[[str], str] = str
) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for i, name in enumerate(names(entries)):
        if by(name) in seen:
            other = seen[by(name)]
            message = (
                f"{name!r} is there already" if other == name else f"{name!r} is too much like {other!r}"
            )
            yield document.problem((*path, i, "name"), f"{message}: names in this list must differ")
        seen.setdefault(by(name), name)


def one_default_box(commit: Commit) -> Iterator[Problem]:
    for document in commit.documents:
        boxes = spec_of(document).get("connectedBoxes", [])
        defaults = [i for i, box in enumerate(boxes) if box.get("default")]
        for i in defaults[1:]:
            message = f"{boxes[defaults[0]]['name']!r} is the default box already: at most one can be"
            yield document.problem(("spec", "connectedBoxes", i, "default"), message)


# --- APIs -------------------------------------------------------------------------------------------------------


def api_paths(commit: Commit) -> Iterator[Problem]:
    taken: dict[str, Document] = {}
    for document in commit.of(Kind.API_COMPONENT):
        path = api_path(spec_of(document))
        if path in taken:
            message = f"{path!r} is the path of the APIComponent {taken[path].name!r} already: choose another"
            yield document.problem(("spec", "restfulApi", "path"), message)
        taken.setdefault(path, document)


def api_specs(commit: Commit) -> Iterator[Problem]:
    """What an API says of a pipeline must be so: its inputs are the variables that nobody else fills."""
    pipelines = {document.name: spec_of(document) for document in commit.of(Kind.EXPERIMENT_PIPELINE)}
    for document in commit.of(Kind.API_COMPONENT):
        target = document.get("spec", "experimentPipeline", "name")
        if not isinstance(target, str) or target not in pipelines:
            continue
        described = spec_of(document)["apiSpec"]
        open_inputs, outputs = open_variables(pipelines[target])
        yield from _api_variables(document, "inputs", described, open_inputs, f"input of pipeline {target!r}")
        published = {var["name"] for var in pipelines[target].get("vars", []) if "publishTo" in var}
        yield from _api_variables(
            document, "outputs", described, outputs, f"output of pipeline {target!r}", published
        )
        for name in sorted(open_inputs - set(names(described.get("inputs", [])))):
            message = f"the input {name!r} of pipeline {target!r} is missing: nobody could pass it"
            yield document.problem(("spec", "apiSpec", "inputs"), message)


def _api_variables(
    document: Document,
    field: str,
    described: Mapping[str, Any],
    known: Collection[str],
    role: str,
    published: Collection[str] = (),
) -> Iterator[Problem]:
    for i, name in enumerate(names(described.get(field, []))):
        path = ("spec", "apiSpec", field, i, "name")
        if name not in known:
            yield document.problem(path, f"{name!r} is no {role}{nearest(name, known)}")
        elif name in published:
            message = f"{name!r} goes to a box of the module (publishTo): callers cannot ask for it"
            yield document.problem(path, message)


def open_variables(pipeline: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Variables that a caller must fill, and variables that stages output."""
    stages = pipeline["stages"]
    outputs = frozenset(name for stage in stages for name in names(stage.get("outputs", [])))
    inputs = frozenset(name for stage in stages for name in names(stage.get("inputs", [])))
    mounted = {var["name"] for var in pipeline.get("vars", []) if "mountFrom" in var}
    return inputs - outputs - mounted, outputs


# --- pipelines --------------------------------------------------------------------------------------------------


def variables(commit: Commit) -> Iterator[Problem]:
    """Stages use declared variables, and each is filled from one side only."""
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        declared = {var["name"]: var for var in spec_of(document).get("vars", [])}
        filled: dict[str, str] = {name: "its box" for name, var in declared.items() if "mountFrom" in var}
        for s, stage in enumerate(spec_of(document)["stages"]):
            for field in ("inputs", "outputs"):
                for i, name in enumerate(names(stage.get(field, []))):
                    if name not in declared:
                        path = ("spec", "stages", s, field, i, "name")
                        message = f"'vars' has no {name!r}{nearest(name, declared)}"
                        yield document.problem(path, message)
            for i, name in enumerate(names(stage.get("outputs", []))):
                if name in filled:
                    path = ("spec", "stages", s, "outputs", i, "name")
                    yield document.problem(path, f"{name!r} is filled by {filled[name]} already")
                filled.setdefault(name, f"stage {stage['name']!r}")


def publications(commit: Commit) -> Iterator[Problem]:
    """Only what a stage makes is published, and no two publications are in each other's way: pipelines may take turns
    at one place, but one never lies in another."""
    places: list[tuple[str, str, str, str]] = []  # box, path, pipeline, variable
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        outputs = open_variables(spec_of(document))[1]
        for i, var in enumerate(spec_of(document).get("vars", [])):
            if "publishTo" not in var:
                continue
            name, box, path = var["name"], var["publishTo"]["box"], var["publishTo"]["path"]
            if name not in outputs:
                message = f"no stage outputs {name!r}: only what a stage outputs can be published"
                yield document.problem(("spec", "vars", i, "publishTo"), message)
            if near := next((p for p in places if p[0] == box and _overlap(p, path, document.name)), None):
                where = "" if near[2] == document.name else f" of pipeline {near[2]!r}"
                message = f"overlaps {near[1]!r}, where {near[3]!r}{where} is published: choose another path"
                yield document.problem(("spec", "vars", i, "publishTo", "path"), message)
            places.append((box, path, document.name, name))


def _overlap(place: tuple[str, str, str, str], path: str, pipeline: str) -> bool:
    taking_turns = place[1] == path and place[2] != pipeline
    return not taking_turns and (path.startswith(place[1]) or place[1].startswith(path))


def mount_points(commit: Commit) -> Iterator[Problem]:
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        taken: dict[str, str] = {}
        for i, var in enumerate(spec_of(document).get("vars", [])):
            place = var.get("mountTo", "").rstrip("/")
            if place and place in taken:
                message = f"{taken[place]!r} is mounted there already: choose another path"
                yield document.problem(("spec", "vars", i, "mountTo"), message)
            taken.setdefault(place, var["name"])


def stage_cycles(commit: Commit) -> Iterator[Problem]:
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        stages = spec_of(document)["stages"]
        makers = {name: stage["name"] for stage in stages for name in names(stage.get("outputs", []))}
        graph = {s["name"]: {makers[v] for v in names(s.get("inputs", [])) if v in makers} for s in stages}
        for cycle in cycles(graph):
            path = ("spec", "stages", [s["name"] for s in stages].index(cycle[0]), "inputs")
            message = (
                f"stages wait for each other: {' → '.join(cycle)}; a stage's input must come from before it"
            )
            yield document.problem(path, message)


def pipeline_cycles(commit: Commit) -> Iterator[Problem]:
    documents = {document.name: document for document in commit.of(Kind.EXPERIMENT_PIPELINE)}
    graph: dict[str, set[str]] = {name: set() for name in documents}
    for name, document in documents.items():
        after = document.get("spec", "continueWith", "pipeline")
        if isinstance(after, str) and after in graph:
            graph[after].add(name)
    for cycle in cycles(graph):
        message = f"pipelines would start each other for ever: {' → '.join(cycle)}"
        yield documents[cycle[0]].problem(("spec", "continueWith", "pipeline"), message)


def cycles(predecessors: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """One cycle of each tangle, from its smallest name round to itself again."""
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


# --- limits -----------------------------------------------------------------------------------------------------


def sizes(commit: Commit) -> Iterator[Problem]:
    """What one container asks for must be possible at all."""
    for document in commit.documents:
        for prefix, raw in _containers(document):
            wanted = resources(raw, commit.limits)
            if wanted.memory < MIN_MEMORY:
                message = f"{render_size(wanted.memory)} is too little: at least {render_size(MIN_MEMORY)}"
                yield document.problem((*prefix, "resources", "memory"), message)
            if raw.get("replicas", 1) > commit.limits.max_replicas:
                message = f"{raw['replicas']} is too much: the controller's config allows {commit.limits.max_replicas}"
                yield document.problem((*prefix, "replicas"), message)


def totals(commit: Commit) -> Iterator[Problem]:
    """The sums over all components against the limits of the PlatformApp."""
    limits = commit.app.limits
    workloads = [
        (document, resources(spec_of(document), commit.limits), int(spec_of(document).get("replicas", 1)))
        for document in commit.of(Kind.ML_COMPONENT)
    ]
    cpus = [(document, wanted.cpus * replicas) for document, wanted, replicas in workloads]
    memory = [(document, wanted.memory * replicas) for document, wanted, replicas in workloads]
    containers = [(document, replicas) for document, _, replicas in workloads]
    storage = [(document, box(document).capacity) for document in commit.of(Kind.DATA_BOX)]
    yield from _over(cpus, limits.cpus, ("spec", "resources", "cpus"), _cpus)
    yield from _over(memory, limits.memory, ("spec", "resources", "memory"), _memory)
    yield from _over(containers, limits.containers, ("spec", "replicas"), _count)
    yield from _over(storage, limits.storage, ("spec", "s3DefaultStorage", "capacity"), _storage)


def _over(
    shares: Sequence[tuple[Document, T]], limit: T | None, path: Path, render: Callable[[T], str]
) -> Iterator[Problem]:
    """One problem where the running sum passes the limit; it tells the whole sum."""
    if limit is None:
        return
    whole = sum(share for _, share in shares)
    running = 0.0
    for document, share in shares:
        running += share
        if running > limit:
            message = (
                f"all components together ask for {render(whole)}; the PlatformApp allows {render(limit)}"
            )
            yield document.problem(path, message)
            return


def stage_sizes(commit: Commit) -> Iterator[Problem]:
    """Stages count one by one, for they wait for each other; but one that is larger than the limit never starts."""
    limits = commit.app.limits
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        for prefix, raw in _containers(document):
            wanted = resources(raw, commit.limits)
            if limits.cpus is not None and wanted.cpus > limits.cpus:
                message = f"{_cpus(wanted.cpus)} are too much: the PlatformApp allows {_cpus(limits.cpus)}"
                yield document.problem((*prefix, "resources", "cpus"), message)
            if limits.memory is not None and wanted.memory > limits.memory:
                message = (
                    f"{_memory(wanted.memory)} is too much: the PlatformApp allows {_memory(limits.memory)}"
                )
                yield document.problem((*prefix, "resources", "memory"), message)


def _cpus(number: float) -> str:
    return f"{number:g} CPUs"


def _memory(size: int) -> str:
    return f"{render_size(size)} of memory"


def _count(number: int) -> str:
    return f"{number} container{'s' if number != 1 else ''}"


def _storage(size: int) -> str:
    return f"{render_size(size)} of storage"


CHECKS: tuple[Check, ...] = (
    references,
    unique_names,
    one_default_box,
    api_paths,
    api_specs,
    variables,
    publications,
    mount_points,
    stage_cycles,
    pipeline_cycles,
    sizes,
    totals,
    stage_sizes,
)


# --- what is allowed but deserves a word ------------------------------------------------------------------------


def warnings(commit: Commit) -> Iterator[str]:
    for document in commit.documents:
        if document.kind is Kind.SECRET:
            yield document.warning(
                ["kind"],
                f"the Secret {document.name!r} lies in plain text in the module's repository, for all who can read"
                " it: better put it into the platform folder",
            )
        auth = document.get("spec", "restfulApi", "auth")
        if (
            isinstance(auth, dict)
            and auth.get("identityPassThrough")
            and not auth.keys() & {"basic", "token", "oidc"}
        ):
            path = ("spec", "restfulApi", "auth", "identityPassThrough")
            yield document.warning(path, "has nobody to tell about: 'auth' names no way to log in")
    for document in commit.of(Kind.EXPERIMENT_PIPELINE):
        yield from _pipeline_warnings(document)


def _pipeline_warnings(document: Document) -> Iterator[str]:
    spec = spec_of(document)
    used = {
        name for stage in spec["stages"] for f in ("inputs", "outputs") for name in names(stage.get(f, []))
    }
    for i, var in enumerate(spec.get("vars", [])):
        if var["name"] not in used:
            yield document.warning(("spec", "vars", i, "name"), f"no stage uses {var['name']!r}")
    if "schedule" in spec and (unfilled := open_variables(spec)[0]):
        listed = ", ".join(sorted(unfilled))
        message = f"a run started by the clock is passed no inputs: give {listed} a mountFrom"
        yield document.warning(("spec", "schedule"), message)
