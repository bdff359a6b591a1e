"""Checks that a schema cannot express: how the documents of a commit fit together, and how the commit fits its app.
Those of pipelines and of limits are in modules of their own.

Each check is a generator of Problems over one `CheckedCommit`; `CHECKS` is the list of all. They get documents that
passed their schema, and know the names of those that did not, so that one mistake is not reported twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from controller.domain.apps.environment import misleading, unusable
from controller.domain.apps.spec import ANY_ORIGIN, ComponentKind, PlatformAppSpec, SecretSpec
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.routing.callers import unusable_passwords, unusable_tokens
from controller.domain.routing.origins import NoOrigin, serialized
from controller.manifests.commit import Check, CheckedCommit, containers
from controller.manifests.components import api_path, names, secret, spec_of
from controller.manifests.limit_checks import (
    batch_delays,
    processes,
    sizes,
    stage_sizes,
    stage_timeouts,
    totals,
)
from controller.manifests.pipeline_checks import (
    box_paths,
    component_cycles,
    files_without_box,
    mount_points,
    open_variables,
    pipeline_cycles,
    publications,
    stage_cycles,
    variables,
)
from controller.manifests.reader import ManifestDocument, nearest
from controller.yaml_documents import Path

MOST_FOLLOWED = 50  # images of an app
MOST_NOTIFICATIONS = 20  # of an app, or of the platform

_PLATFORM_KINDS = (ComponentKind.REPOSITORY, ComponentKind.PLATFORM_APP)


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


def origins(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report origins that no page has, so that listing them lets nobody in."""
    for document in commit.of(ComponentKind.API_COMPONENT):
        listed: list[str] = spec_of(document).get("restfulApi", {}).get("cors", {}).get("origins", [])
        for i, origin in enumerate(listed):
            try:
                origin == ANY_ORIGIN or serialized(origin)
            except NoOrigin as error:
                message = Localizable("{origin!r} {why}", origin=origin, why=error.args[0])
                yield document.problem(("spec", "restfulApi", "cors", "origins", i), message)


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


CHECKS: tuple[Check, ...] = (
    references,
    origins,
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
