"""Checks that a schema cannot express: how the documents of a commit fit together, and how the commit fits its app.

Each check is a generator of Problems over one `CheckedCommit`; `CHECKS` is the list of all. They get documents that
passed their schema, and know the names of those that did not, so that one mistake is not reported twice.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from controller.config import DefaultLimits
from controller.domain.apps.environment import misleading, unusable, without_effect
from controller.domain.apps.mounts import MOUNT, nested, unmountable
from controller.domain.apps.spec import ComponentKind, PlatformAppSpec, SecretSpec
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.routing.callers import unusable_passwords, unusable_tokens
from controller.domain.runs.stage_slots import Use, remainder
from controller.domain.storage.keys import FileKeyInvalid, parse_path
from controller.domain.units import parse_duration, render_duration, render_size
from controller.manifests.components import api_path, box, names, resources, secret, spec_of
from controller.manifests.encrypted import plain_parts
from controller.manifests.reader import ManifestDocument, nearest
from controller.yaml_documents import Path

#: Docker refuses containers with less.
MIN_MEMORY = 6 * 2**20
MIN_SHM = 2**20
MOST_FOLLOWED = 50  # images of an app
MOST_NOTIFICATIONS = 20  # of an app, or of the platform

_PLATFORM_KINDS = (ComponentKind.REPOSITORY, ComponentKind.PLATFORM_APP)


@dataclass(frozen=True)
class CheckedCommit:
    """The documents of a commit and what they may refer to. Where the platform's side is not known (checking a folder
    by itself), what refers to it becomes a note instead of a problem."""

    documents: tuple[ManifestDocument, ...]
    declared: Mapping[ComponentKind, frozenset[str]]
    app: PlatformAppSpec
    platform_known: bool
    limits: DefaultLimits

    def of(self, kind: ComponentKind) -> tuple[ManifestDocument, ...]:
        return tuple(document for document in self.documents if document.kind is kind)


Check = Callable[[CheckedCommit], Iterator[ManifestProblem]]
T = TypeVar("T", int, float)


def identity(documents: Collection[ManifestDocument], app: PlatformAppSpec) -> Iterator[ManifestProblem]:
    """Check names, namespaces and kinds of all documents, even of invalid ones."""
    yield from duplicates(documents)
    for document in documents:
        if document.kind is ComponentKind.NOTIFICATION and document.get("spec", "apps") is not None:
            message = Localizable(
                "belongs into the platform folder: here a Notification is about its own app"
            )
            yield document.problem(["spec", "apps"], message)
        if document.kind in _PLATFORM_KINDS:
            message = Localizable(
                "{kind} belongs into the platform folder, not into the module's repository",
                kind=document.kind,
            )
            yield document.problem(["kind"], message)
        namespace = document.get("metadata", "namespace")
        # The manifests of a preview's branch say the name of its main app.
        names = (app.name, app.preview.app if app.preview else app.name)
        if isinstance(namespace, str) and namespace not in names:
            message = Localizable(
                "must be the app's name, {app!r}, or be left out; it is {namespace!r}",
                app=app.name,
                namespace=namespace,
            )
            yield document.problem(["metadata", "namespace"], message)


def duplicates(documents: Collection[ManifestDocument]) -> Iterator[ManifestProblem]:
    first: dict[tuple[ComponentKind, str, object], ManifestDocument] = {}
    for document in documents:
        scope = document.get("metadata", "namespace") if document.kind is ComponentKind.SECRET else None
        key = (document.kind, document.name, str(scope))
        if document.name and key in first:
            place = f"{first[key].file}:{first[key].node.place(['metadata', 'name'])[0]}"
            message = Localizable(
                "there is another {kind} {document!r} in {place}: rename or remove one",
                kind=document.kind,
                document=document.name,
                place=place,
            )
            yield document.problem(["metadata", "name"], message)
        first.setdefault(key, document)


# --- references -------------------------------------------------------------------------------------------------


def references(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Check that boxes, pipelines and components that are named exist."""
    for document, path, kind in _references(commit):
        name = str(document.get(*path))
        if name not in commit.declared[kind]:
            known = commit.declared[kind]
            message = Localizable(
                "the app has no {kind} {name!r}{nearest}", kind=kind, name=name, nearest=nearest(name, known)
            )
            yield document.problem(path, message)


def _references(commit: CheckedCommit) -> Iterator[tuple[ManifestDocument, Path, ComponentKind]]:
    for document in commit.documents:
        spec = spec_of(document)
        for i, _ in enumerate(spec.get("connectedBoxes", [])):
            yield document, ("spec", "connectedBoxes", i, "name"), ComponentKind.DATA_BOX
        if document.kind is ComponentKind.ML_COMPONENT:
            for i, _ in enumerate(spec.get("dependsOn", [])):
                yield document, ("spec", "dependsOn", i), ComponentKind.ML_COMPONENT
        for i, var in enumerate(spec.get("vars", [])):
            for field in ("mountFrom", "publishTo"):
                if field in var:
                    yield document, ("spec", "vars", i, field, "box"), ComponentKind.DATA_BOX
        for path, kind in (
            (("spec", "mlService", "modelBox"), ComponentKind.DATA_BOX),
            (("spec", "mlComponent", "name"), ComponentKind.ML_COMPONENT),
            (("spec", "experimentPipeline", "name"), ComponentKind.EXPERIMENT_PIPELINE),
            (("spec", "continueWith", "pipeline"), ComponentKind.EXPERIMENT_PIPELINE),
        ):
            if document.get(*path) is not None:
                yield document, path, kind


def package_registries(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report package registries that the PlatformApp does not name."""
    known = frozenset(registry.name for registry in commit.app.package_registries)
    path = ("spec", "mlService", "packageRegistryName")
    for document in commit.documents:
        if (registry := document.get(*path)) is not None and registry not in known:
            message = Localizable(
                "the PlatformApp names no package registry {registry!r}{nearest}",
                registry=registry,
                nearest=nearest(str(registry), known),
            )
            unknown = Localizable(
                "{registry!r} is not in this folder: the platform must have it", registry=registry
            )
            yield document.problem(path, message if commit.platform_known else unknown)


def unset_secrets(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report Secrets that are named and not in the commit: somebody has to set them."""
    known = commit.declared[ComponentKind.SECRET]
    for document in commit.documents:
        for path in _secret_paths(document):
            if (name := str(document.get(*path))) not in known:
                hint = nearest(name, known) or Localizable(
                    ": the platform must have it, or set it with: prichal secret set APP {name} KEY",
                    name=name,
                )
                yield document.problem(
                    path, Localizable("the Secret {name!r} is not in this folder{hint}", name=name, hint=hint)
                )


def environments(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report keys and values of plain Secrets in the commit that cannot be environment variables. Secrets of the
    platform's side are checked when they are used."""
    own = _readable(commit)
    for document in commit.documents:
        for prefix, raw in containers(document):
            for i, name in enumerate(entry["secretRef"]["name"] for entry in raw.get("envFrom", [])):
                for why in unusable(own[name]) if name in own else ():
                    yield document.problem((*prefix, "envFrom", i, "secretRef", "name"), why)
        if (
            document.kind is ComponentKind.ML_COMPONENT
            and document.get("spec", "mlService", "server") != "own"
        ):
            for i, entry in enumerate(spec_of(document).get("env", [])):
                if why := misleading(entry["name"], entry["value"]):
                    yield document.problem(("spec", "env", i, "name"), why)


def _readable(commit: CheckedCommit) -> Mapping[str, SecretSpec]:
    """Return the Secrets of the commit by name, without those whose values were not decrypted."""
    return {
        document.name: secret(document, None)
        for document in commit.of(ComponentKind.SECRET)
        if document.is_decrypted
    }


def callers(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report callers in plain Secrets of the commit who could not call; see `environments` for other Secrets."""
    own = _readable(commit)
    for document in commit.of(ComponentKind.API_COMPONENT):
        for way, unfit in (("basic", unusable_passwords), ("token", unusable_tokens)):
            path = ("spec", "restfulApi", "auth", way, "credentials")
            name = document.get(*path)
            for why in unfit(own[name]) if isinstance(name, str) and name in own else ():
                yield document.problem(path, why)


#: Kinds with webhooks at the end of what callers have asked for, or with other receivers.
_NOTIFYING = (ComponentKind.EXPERIMENT_PIPELINE, ComponentKind.ML_COMPONENT, ComponentKind.NOTIFICATION)


def _secret_paths(document: ManifestDocument) -> Iterator[Path]:
    for prefix, raw in containers(document):
        for i, _ in enumerate(raw.get("envFrom", [])):
            yield (*prefix, "envFrom", i, "secretRef", "name")
        for i, _ in enumerate(_build_secrets(raw)):
            yield (*prefix, "image", "build", "secrets", i, "secret")
    for way in ("basic", "token"):
        path = ("spec", "restfulApi", "auth", way, "credentials")
        if document.get(*path) is not None:
            yield path
    for hook in (("spec", "webhook", "secret"), ("spec", "apprise", "secret")):
        if document.kind in _NOTIFYING and document.get(*hook) is not None:
            yield hook


def _build_secrets(raw: Mapping[str, Any]) -> list[Any]:
    build = raw.get("image", {}).get("build")
    return build.get("secrets", []) if isinstance(build, dict) else []


def containers(document: ManifestDocument) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The parts of a document that describe a container, with their paths."""
    if document.kind is ComponentKind.ML_COMPONENT:
        yield ("spec",), spec_of(document)
    elif document.kind is ComponentKind.EXPERIMENT_PIPELINE:
        for i, stage in enumerate(spec_of(document)["stages"]):
            yield ("spec", "stages", i), stage


def notifications(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Each Notification is looked at again and again, and sends messages, so an app has few."""
    for document in commit.of(ComponentKind.NOTIFICATION)[MOST_NOTIFICATIONS:]:
        yield document.problem(
            ["kind"],
            Localizable(
                "an app may have {most_notifications} Notifications at most",
                most_notifications=MOST_NOTIFICATIONS,
            ),
        )


def followed_images(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Each image is asked for again and again."""
    found = [
        (document, path)
        for document in commit.documents
        for path, raw in containers(document)
        if "follow" in raw["image"]
    ]
    for document, path in found[MOST_FOLLOWED:]:
        message = Localizable("an app may follow {most_followed} images at most", most_followed=MOST_FOLLOWED)
        yield document.problem((*path, "image", "follow"), message)


# --- lists whose entries have names -----------------------------------------------------------------------------


def unique_names(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    for document in commit.documents:
        for prefix, raw in containers(document):
            yield from _repeated(document, (*prefix, "env"), raw.get("env", []))
            yield from _repeated_ids(document, (*prefix, "image", "build", "secrets"), _build_secrets(raw))
        spec = spec_of(document)
        for field in ("connectedBoxes", "vars", "stages"):
            yield from _repeated(document, ("spec", field), spec.get(field, []), by=_variable_key)
        for field in ("inputs", "outputs"):
            entries = spec.get("apiSpec", {}).get(field, [])
            yield from _repeated(document, ("spec", "apiSpec", field), entries)


def _repeated_ids(document: ManifestDocument, path: Path, entries: list[Any]) -> Iterator[ManifestProblem]:
    seen: set[str] = set()
    for i, entry in enumerate(entries):
        if entry["id"] in seen:
            yield document.problem(
                (*path, i, "id"),
                Localizable("another one has the id {entry!r}: give each its own", entry=entry["id"]),
            )
        seen.add(entry["id"])


def _variable_key(name: str) -> str:
    """Return the key of the variable; names that would share UNIP_PIPELINE_<NAME> have the same."""
    return name.upper().replace("-", "_")


def _repeated(
    document: ManifestDocument, path: Path, entries: list[Any], by: Callable[[str], str] = str
) -> Iterator[ManifestProblem]:
    seen: dict[str, str] = {}
    for i, name in enumerate(names(entries)):
        if by(name) in seen:
            other = seen[by(name)]
            message = (
                Localizable("{name!r} is there already", name=name)
                if other == name
                else Localizable("{name!r} is too much like {other!r}", name=name, other=other)
            )
            yield document.problem(
                (*path, i, "name"), Localizable("{message}: names in this list must differ", message=message)
            )
        seen.setdefault(by(name), name)


def one_default_box(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    for document in commit.documents:
        boxes = spec_of(document).get("connectedBoxes", [])
        defaults = [i for i, box in enumerate(boxes) if box["default"]]
        for i in defaults[1:]:
            message = Localizable(
                "{boxes!r} is the default box already: at most one can be", boxes=boxes[defaults[0]]["name"]
            )
            yield document.problem(("spec", "connectedBoxes", i, "default"), message)


# --- APIs -------------------------------------------------------------------------------------------------------


def api_paths(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    taken: dict[str, ManifestDocument] = {}
    for document in commit.of(ComponentKind.API_COMPONENT):
        path = api_path(spec_of(document))
        if path in taken:
            message = Localizable(
                "{path!r} is the path of the APIComponent {taken!r} already: choose another",
                path=path,
                taken=taken[path].name,
            )
            yield document.problem(("spec", "restfulApi", "path"), message)
        taken.setdefault(path, document)


def api_specs(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report API specs that do not match their pipeline: the inputs are the variables that nothing else fills."""
    pipelines = {
        document.name: spec_of(document) for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE)
    }
    for document in commit.of(ComponentKind.API_COMPONENT):
        target = document.get("spec", "experimentPipeline", "name")
        if not isinstance(target, str) or target not in pipelines:
            continue
        described = spec_of(document)["apiSpec"]
        open_inputs, outputs = open_variables(pipelines[target])
        yield from _api_variables(
            document,
            "inputs",
            described,
            open_inputs,
            Localizable("an input of pipeline {target!r}", target=target),
        )
        published = {var["name"] for var in pipelines[target].get("vars", []) if "publishTo" in var}
        yield from _api_variables(
            document,
            "outputs",
            described,
            outputs,
            Localizable("an output of pipeline {target!r}", target=target),
            published,
        )
        for name in sorted(open_inputs - set(names(described.get("inputs", [])))):
            message = Localizable(
                "the input {name!r} of pipeline {target!r} is missing: nobody could pass it",
                name=name,
                target=target,
            )
            yield document.problem(("spec", "apiSpec", "inputs"), message)


def _api_variables(
    document: ManifestDocument,
    field: str,
    described: Mapping[str, Any],
    known: Collection[str],
    role: str,
    published: Collection[str] = (),
) -> Iterator[ManifestProblem]:
    for i, name in enumerate(names(described.get(field, []))):
        path = ("spec", "apiSpec", field, i, "name")
        if name not in known:
            yield document.problem(
                path,
                Localizable(
                    "{name!r} is not {role}{nearest}", name=name, role=role, nearest=nearest(name, known)
                ),
            )
        elif name in published:
            message = Localizable(
                "{name!r} goes to a box of the module (publishTo): callers cannot ask for it", name=name
            )
            yield document.problem(path, message)


def open_variables(pipeline: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Variables that a caller must fill, and variables that stages output."""
    stages = pipeline["stages"]
    outputs = frozenset(name for stage in stages for name in names(stage.get("outputs", [])))
    inputs = frozenset(name for stage in stages for name in names(stage.get("inputs", [])))
    mounted = {var["name"] for var in pipeline.get("vars", []) if "mountFrom" in var}
    return inputs - outputs - mounted, outputs


# --- pipelines --------------------------------------------------------------------------------------------------


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
    begun = _begun_here(commit)
    for name, document in boxless.items():
        for path, message in _outputs_without_box(document) if name in begun else ():
            yield document.problem(path, message)


def _begun_here(commit: CheckedCommit) -> frozenset[str]:
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
    documents = {document.name: document for document in commit.of(ComponentKind.ML_COMPONENT)}
    graph = {
        name: [before for before in spec_of(document).get("dependsOn", []) if before in documents]
        for name, document in documents.items()
    }
    for cycle in cycles(graph):
        message = Localizable(
            "components wait for each other: {names}; none of them would ever start", names=" → ".join(cycle)
        )
        yield documents[cycle[0]].problem(("spec", "dependsOn"), message)


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


# --- limits -----------------------------------------------------------------------------------------------------


def sizes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report containers that ask for more than any container can get."""
    for document in commit.documents:
        for prefix, raw in containers(document):
            wanted = resources(raw, commit.limits)
            if wanted.memory < MIN_MEMORY:
                message = Localizable(
                    "{memory} is too little: at least {min_memory}",
                    memory=render_size(wanted.memory),
                    min_memory=render_size(MIN_MEMORY),
                )
                yield document.problem((*prefix, "resources", "memory"), message)
            if wanted.shm is not None and not MIN_SHM <= wanted.shm <= wanted.memory:
                yield document.problem((*prefix, "resources", "shm"), _unfit_shm(wanted.shm, wanted.memory))
            if raw.get("replicas", 0) > commit.limits.max_replicas:
                message = Localizable(
                    "{raw} is too much: the controller's config allows {max_replicas}",
                    raw=raw["replicas"],
                    max_replicas=commit.limits.max_replicas,
                )
                yield document.problem((*prefix, "replicas"), message)


def _unfit_shm(shm: int, memory: int) -> str:
    if shm < MIN_SHM:
        return Localizable(
            "{shm} is too little: at least {min_shm}", shm=render_size(shm), min_shm=render_size(MIN_SHM)
        )
    return Localizable(
        "{shm} is more than the container's memory ({memory}), against which it counts",
        shm=render_size(shm),
        memory=render_size(memory),
    )


def processes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report components with processes that would never get a call."""
    for document in commit.of(ComponentKind.ML_COMPONENT):
        service = spec_of(document)["mlService"]
        alone = service["server"] == "platform" and "batch" not in service
        if alone and service["processes"] > service["concurrency"]:
            message = Localizable(
                "{service} are more than the calls at once ({service2}), so some would never get "
                "one: raise concurrency to {service} or more",
                service=service["processes"],
                service2=service["concurrency"],
            )
            yield document.problem(("spec", "mlService", "processes"), message)


def batch_delays(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report components whose calls could time out while they wait for others."""
    for document in commit.of(ComponentKind.ML_COMPONENT):
        service = spec_of(document)["mlService"]
        if "batch" in service:
            delay, timeout = map(parse_duration, (service["batch"]["maxDelay"], service["timeout"]))
            if delay >= timeout:
                most = Localizable(
                    "it must be less than the timeout of a call, {timeout}", timeout=render_duration(timeout)
                )
                message = Localizable("{delay} is too long: {most}", delay=render_duration(delay), most=most)
                yield document.problem(("spec", "mlService", "batch", "maxDelay"), message)


def stage_timeouts(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    most = commit.limits.max_stage_timeout
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        for number, stage in enumerate(spec_of(document)["stages"]):
            asked = parse_duration(stage.get("timeout", 0))
            if asked > most:
                allowed = Localizable("the controller's config allows {most}", most=render_duration(most))
                message = Localizable(
                    "{asked} is too long: {allowed}", asked=render_duration(asked), allowed=allowed
                )
                yield document.problem(("spec", "stages", number, "timeout"), message)


def totals(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Compare the sums over all components with the limits of the PlatformApp."""
    limits = commit.app.limits
    workloads = [
        (document, resources(spec_of(document), commit.limits), int(spec_of(document)["replicas"]))
        for document in commit.of(ComponentKind.ML_COMPONENT)
    ]
    cpus = [(document, wanted.cpus * replicas) for document, wanted, replicas in workloads]
    memory = [(document, wanted.memory * replicas) for document, wanted, replicas in workloads]
    containers = [(document, replicas) for document, _, replicas in workloads]
    gpus = [(document, wanted.gpus * replicas) for document, wanted, replicas in workloads]
    storage = [(document, box(document).capacity) for document in commit.of(ComponentKind.DATA_BOX)]
    yield from _over(cpus, limits.cpus, ("spec", "resources", "cpus"), _cpus)
    yield from _over(memory, limits.memory, ("spec", "resources", "memory"), _memory)
    yield from _over(containers, limits.containers, ("spec", "replicas"), _count)
    yield from _over(gpus, limits.gpus, ("spec", "resources", "gpus"), _gpus)
    yield from _over(storage, limits.storage, ("spec", "s3DefaultStorage", "capacity"), _storage)


def _over(
    shares: Sequence[tuple[ManifestDocument, T]], limit: T | None, path: Path, render: Callable[[T], str]
) -> Iterator[ManifestProblem]:
    """Report one problem, where the running sum exceeds the limit; it states the whole sum."""
    if limit is None:
        return
    whole = sum(share for _, share in shares)
    running = 0.0
    for document, share in shares:
        running += share
        if running > limit:
            message = Localizable(
                "all components together ask for {whole}; the limits of the app allow {limit}",
                whole=render(whole),
                limit=render(limit),
            )
            yield document.problem(path, message)
            return


def stage_sizes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report stages that never fit next to the components: stages wait for each other, but such a stage would wait
    for ever."""
    specs = [spec_of(document) for document in commit.of(ComponentKind.ML_COMPONENT)]
    uses = (Use.of(resources(spec, commit.limits), int(spec["replicas"])) for spec in specs)
    taken, limits = sum(uses, Use()), commit.app.limits
    left = limits if taken.beyond(limits) else remainder(limits, taken)  # else `totals` says it
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        for prefix, raw in containers(document):
            wanted = resources(raw, commit.limits)
            for name, asked, allowed, rest, render in (
                ("cpus", wanted.cpus, limits.cpus, left.cpus, _cpus),
                ("memory", wanted.memory, limits.memory, left.memory, _memory),
                ("gpus", wanted.gpus, limits.gpus, left.gpus, _gpus),
            ):
                if rest is not None and asked > rest:
                    yield document.problem(
                        (*prefix, "resources", name), _too_much(render, asked, allowed, rest)
                    )
            if left.containers == 0:
                yield document.problem(prefix, _too_much(_count, 1, limits.containers, 0))


def _too_much(render: Callable[[Any], str], asked: object, allowed: object, rest: object) -> str:
    left = (
        ""
        if allowed == rest
        else Localizable(", and its components leave {rest} for stages", rest=render(rest))
    )
    values = {"asked": render(asked), "allowed": render(allowed), "left": left}
    if render is _cpus:
        return Localizable("{asked} are too much: the limits of the app allow {allowed}{left}", **values)
    return Localizable("{asked} is too much: the limits of the app allow {allowed}{left}", **values)


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number != 1 else ''}"


def _cpus(number: float) -> str:
    return f"{number:g} CPUs"


def _memory(size: int) -> str:
    return Localizable("{size} of memory", size=render_size(size))


def _count(number: int) -> str:
    return f"{number} container{'s' if number != 1 else ''}"


def _storage(size: int) -> str:
    return Localizable("{size} of storage", size=render_size(size))


CHECKS: tuple[Check, ...] = (
    references,
    environments,
    callers,
    unique_names,
    one_default_box,
    api_paths,
    api_specs,
    variables,
    files_without_box,
    publications,
    mount_points,
    box_paths,
    stage_cycles,
    pipeline_cycles,
    component_cycles,
    sizes,
    processes,
    batch_delays,
    totals,
    stage_sizes,
    stage_timeouts,
    notifications,
    followed_images,
)


# --- what is allowed but deserves a word ------------------------------------------------------------------------


def warnings(commit: CheckedCommit) -> Iterator[str]:
    for document in commit.documents:
        if document.kind is ComponentKind.SECRET and (parts := plain_parts(document)):
            which = f" ({', '.join(parts[:10])})" if document.encrypted or document.contents else ""
            yield document.warning(
                ["kind"],
                f"the Secret {document.name!r} lies in plain text in the module's repository{which}, for all who can"
                f" read it: set it with `prichal secret set {commit.app.name} {document.name} KEY`, or encrypt it with"
                f" sops (prichal secret key {commit.app.name})",
            )
        auth = document.get("spec", "restfulApi", "auth")
        if (
            isinstance(auth, dict)
            and auth.get("identityPassThrough")
            and not auth.keys() & {"basic", "token", "oidc"}
        ):
            path = ("spec", "restfulApi", "auth", "identityPassThrough")
            yield document.warning(path, "has nobody to tell about: 'auth' names no way to log in")
        yield from _gpu_warnings(document)
    begun = _begun_here(commit)
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        yield from _pipeline_warnings(document)
        if not spec_of(document).get("connectedBoxes") and document.name not in begun:
            for place, message in _outputs_without_box(document):
                yield document.warning(place, message)
        yield from _continuation_warnings(commit, document)
    for document in commit.of(ComponentKind.API_COMPONENT):
        if "files" in spec_of(document) and not commit.declared[ComponentKind.DATA_BOX]:
            yield document.warning(("spec", "files"), "there are no files to reach: the app has no DataBox")


def _gpu_warnings(document: ManifestDocument) -> Iterator[str]:
    for prefix, raw in containers(document):
        gpus = int(raw["resources"]["gpus"])
        for number, variable in enumerate(raw.get("env", [])):
            if why := without_effect(variable["name"], variable["value"], gpus):
                yield document.warning((*prefix, "env", number, "value"), why)
        if raw["resources"].get("gpuShare", 0) > 1 and not gpus:
            yield document.warning((*prefix, "resources", "gpuShare"), "has no effect without `gpus`")


def _continuation_warnings(commit: CheckedCommit, document: ManifestDocument) -> Iterator[str]:
    path = ("spec", "continueWith", "pipeline")
    after = next(
        (d for d in commit.of(ComponentKind.EXPERIMENT_PIPELINE) if d.name == document.get(*path)), None
    )
    if after is None:
        return
    passed, outputs = open_variables(spec_of(document))
    missing = open_variables(spec_of(after))[0] - passed - outputs - _optional_inputs(commit, after.name)
    if missing:
        listed = ", ".join(sorted(missing))
        message = Localizable(
            "the pipeline {after!r} is passed no {listed} by this one, so that each run of it would fail",
            after=after.name,
            listed=listed,
        )
        yield document.warning(path, message)


def _optional_inputs(commit: CheckedCommit, pipeline: str) -> frozenset[str]:
    """Return the inputs that callers may omit, by the API's spec."""
    return frozenset(
        raw["name"]
        for document in commit.of(ComponentKind.API_COMPONENT)
        if document.get("spec", "experimentPipeline", "name") == pipeline
        for raw in spec_of(document)["apiSpec"].get("inputs", [])
        if not raw["required"]
    )


def _outputs_without_box(document: ManifestDocument) -> Iterator[tuple[tuple[str | int, ...], str]]:
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


def _pipeline_warnings(document: ManifestDocument) -> Iterator[str]:
    spec = spec_of(document)
    used = {
        name for stage in spec["stages"] for f in ("inputs", "outputs") for name in names(stage.get(f, []))
    }
    for i, var in enumerate(spec.get("vars", [])):
        if var["name"] not in used:
            yield document.warning(("spec", "vars", i, "name"), f"no stage uses {var['name']!r}")
    if "schedule" in spec and (unfilled := open_variables(spec)[0]):
        listed = ", ".join(sorted(unfilled))
        message = Localizable(
            "a run started by the clock is passed no inputs: give {listed} a mountFrom", listed=listed
        )
        yield document.warning(("spec", "schedule"), message)
